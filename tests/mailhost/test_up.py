"""`manage.py up` as an operator meets it: a real start on an empty data directory, real signals, real ports."""

import os
import poplib
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.servers import data_directory, eventually, free_port, is_alive, processes_of

PROJECT = Path(__file__).parents[2]
START_LIMIT = 90  # seconds, on a machine that is busy with other tests


def free_ports() -> dict[str, str]:
    """Free ports for all listeners."""
    names = ("MAILHOST_HTTP", "MAILHOST_POP3", "MAILHOST_POP3S", "MAILHOST_LMTP")
    return {name: f"127.0.0.1:{free_port()}" for name in names}


def environment(data: Path, ports: dict[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return ours | {"MAILHOST_DATA": str(data), "PYTHONUNBUFFERED": "1"} | ports


class Up:
    """A running `manage.py up`."""

    def __init__(self, data: Path, ports: dict[str, str]) -> None:
        self.data = data
        self.ports = ports
        self.log_file = data.with_suffix(".log")
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=PROJECT,
                env=environment(data, ports),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not true():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def role(self, name: str) -> int:
        """The process id of a role, our child whose command line says so."""
        marks = {"web": "gunicorn", "pop3": "runpop3", "lmtp": "runlmtp", "worker": " worker ", "beat": " beat "}
        children = subprocess.run(
            ["ps", "-ww", "--ppid", str(self.process.pid), "-o", "pid=,args="],
            check=True,
            capture_output=True,
            text=True,
        )
        [pid] = [line.split()[0] for line in children.stdout.splitlines() if marks[name] in line]
        return int(pid)

    def address(self, name: str) -> tuple[str, int]:
        host, _, port = self.ports[name].rpartition(":")
        return host, int(port)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Tell it to stop and return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def running(data: Path, ports: dict[str, str]) -> Iterator[Up]:
    """Run it, wait until it has started, and leave nothing of it whatever happens."""
    up = Up(data, ports)
    try:
        up.wait_until(lambda: "Mailhost is running" in up.log)
        yield up
    finally:
        up.process.kill()
        up.process.wait()
        up.log_file.unlink()


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """One running system for the tests of this file that leave it as they find it: running."""
    with data_directory() as path, running(path, free_ports()) as system:
        yield system


def pop3(up: Up) -> closing[poplib.POP3]:
    """A connection that is closed in any case."""
    return closing(poplib.POP3(*up.address("MAILHOST_POP3"), timeout=30))


def log_in(session: poplib.POP3) -> None:
    session.user("an@example.test")
    session.pass_("hutech123")


def can_log_in(up: Up) -> bool:
    try:
        with pop3(up) as session:
            log_in(session)
            session.quit()
    except (OSError, poplib.error_proto):
        return False
    return True


def answers(up: Up, name: str) -> bool:
    try:
        with socket.create_connection(up.address(name), timeout=2) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n" if name == "MAILHOST_HTTP" else b"")
            return bool(client.recv(10))
    except OSError:
        return False


def test_the_demo_mailbox_can_be_read_as_the_first_screen_says(up: Up) -> None:
    with pop3(up) as session:
        log_in(session)
        assert session.stat()[0] >= 3
        session.quit()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_printed_curl_line_works_as_it_stands(up: Up) -> None:
    [line] = re.findall(r"^ +(curl .*)$", up.log, re.MULTILINE)
    shown = subprocess.run(["/bin/sh", "-c", line], check=True, capture_output=True)
    assert b"Subject:" in shown.stdout


def test_tls_is_there_from_the_first_start(up: Up) -> None:
    context = ssl.create_default_context(cafile=str(up.data / "tls" / "cert.pem"))
    with pop3(up) as session:
        session.stls(context)
        session.quit()
    _, port = up.address("MAILHOST_POP3S")
    with closing(poplib.POP3_SSL("localhost", port, context=context, timeout=30)) as session:
        session.quit()


def test_mail_comes_in_over_lmtp_and_goes_out_over_pop3(up: Up) -> None:
    with smtplib.LMTP(*up.address("MAILHOST_LMTP")) as client:
        client.sendmail("a@example.org", ["an@example.test"], b"Subject: from the test of up\r\n\r\nHello\r\n")
    with pop3(up) as session:
        log_in(session)
        newest = session.stat()[0]
        assert b"Subject: from the test of up" in session.retr(newest)[1]
        session.quit()


def test_commands_work_beside_it(up: Up) -> None:
    command = [sys.executable, "manage.py", "migrate", "--check"]
    subprocess.run(command, cwd=PROJECT, env=environment(up.data, up.ports), check=True)
    assert up.process.poll() is None


def refusal(command: str, variables: dict[str, str]) -> str:
    """What a command says that refuses to start."""
    command_line = [sys.executable, "manage.py", command]
    refused = subprocess.run(command_line, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    return refused.stderr


def test_a_second_one_on_the_same_data_is_refused(up: Up) -> None:
    assert f"already runs on {up.data}" in refusal("up", environment(up.data, free_ports()))


def test_a_port_that_is_taken_is_refused_by_name(up: Up, data: Path) -> None:
    taken = {"MAILHOST_POP3": up.ports["MAILHOST_POP3"]}
    said = refusal("up", environment(data, free_ports() | taken))
    assert f"MAILHOST_POP3 is {taken['MAILHOST_POP3']}, where we cannot listen: Address already in use." in said


def test_one_port_for_two_listeners_is_refused(data: Path) -> None:
    ports = free_ports()
    said = refusal("up", environment(data, ports | {"MAILHOST_LMTP": ports["MAILHOST_POP3S"]}))
    assert f"MAILHOST_LMTP is {ports['MAILHOST_POP3S']}, where we cannot listen" in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MAILHOST_POP3", "1110"),
        ("MAILHOST_WORKERS", "none"),
        ("MAILHOST_THROTTLE", "maybe"),
        ("MAILHOST_PLAINTEXT_AUTH", "yes"),
        ("MAILHOST_LMTP", "/" + "x" * 120),
        ("REDIS_URL", "http://localhost"),
        ("DATABASE_URL", "mysql://localhost/mail"),
    ],
)
def test_a_bad_setting_is_refused_by_name(data: Path, variable: str, value: str) -> None:
    shown = "set" if variable.endswith("_URL") else repr(value)  # there may be a password in a URL
    assert f"{variable} is {shown}, but" in refusal("check", environment(data, {}) | {variable: value})


@pytest.mark.parametrize(
    ("role", "listens"),
    [
        ("web", "MAILHOST_HTTP"),
        ("pop3", "MAILHOST_POP3"),
        ("lmtp", "MAILHOST_LMTP"),
        ("worker", None),
        ("beat", None),
    ],
)
def test_a_killed_role_is_back_soon_with_a_line_in_the_log(up: Up, role: str, listens: str | None) -> None:
    first = up.role(role)
    os.kill(first, signal.SIGKILL)
    up.wait_until(lambda: bool(re.search(rf"^\S+ {role} +\| was killed by SIGKILL; starting", up.log, re.MULTILINE)))

    def is_back() -> bool:
        try:
            return up.role(role) != first
        except (ValueError, subprocess.CalledProcessError):
            return False

    up.wait_until(is_back)
    if listens:
        up.wait_until(lambda: answers(up, listens))


def test_killed_embedded_servers_are_back_and_the_log_says_so(up: Up) -> None:
    [pid_file] = (up.data / "embedded").glob("postgres-*/postmaster.pid")
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
    up.wait_until(lambda: "PostgreSQL was killed by SIGKILL; starting it again" in up.log)

    up.wait_until(lambda: can_log_in(up))


def test_a_killed_guardian_is_replaced_and_everything_goes_on(up: Up) -> None:
    def guardians() -> set[int]:
        return {pid for pid, line in processes_of(up.data).items() if "mailhost.embedded postgres" in line}

    before = guardians()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    up.wait_until(lambda: bool(guardians() - before))
    up.wait_until(lambda: can_log_in(up))


def test_it_ends_with_sigterm_and_exit_code_0(up: Up) -> None:
    """The last test of the shared one."""
    assert up.stop(signal.SIGTERM) == 0
    assert not processes_of(up.data)
    assert "Traceback" not in up.log


def test_ctrl_c_ends_it_a_second_start_is_quick_and_a_kill_leaves_nothing(data: Path) -> None:
    ports = free_ports()
    with running(data, ports) as up:
        assert up.stop(signal.SIGINT) == 0
        assert not processes_of(data)

    began = time.monotonic()
    with running(data, ports) as up:
        assert time.monotonic() - began < START_LIMIT / 2  # 10 s where nothing else runs
        assert "curl -u an@example.test" in up.log

        roles = [up.role(name) for name in ("web", "pop3", "lmtp", "worker", "beat")]
        up.process.kill()
        up.process.wait()
        eventually(lambda: not processes_of(data))
        eventually(lambda: not any(map(is_alive, roles)))
        eventually(lambda: not any(answers(up, name) for name in up.ports))
