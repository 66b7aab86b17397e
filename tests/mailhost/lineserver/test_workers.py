"""Processes: listening, draining, dying and being replaced."""

import contextlib
import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from cryptography.x509 import load_der_x509_certificate

from mailhost.lineserver import Config, Endpoint
from tests.mailhost.lineserver.conftest import write_certificate
from tests.mailhost.lineserver.running import Client, Server, alive, eventually, refuses, short_directory
from tests.servers import free_port


def test_workers_share_the_connections(tmp_path: Path) -> None:
    with Server(tmp_path / "server", workers=2, connections_per_address=1000) as server:
        pids = set()
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                pids.add(int(stack.enter_context(server.client()).ask(b"who").split()[3]))
        assert pids == set(server.pids())


def test_a_killed_worker_is_replaced_and_nobody_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path / "server", workers=2) as server:
        refused: list[OSError] = []
        served: list[bytes] = []
        over = threading.Event()

        def connect() -> None:
            while not over.is_set():
                try:
                    with Client.to(server.address()) as client:
                        # Its worker may be killed before it is asked anything.
                        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                            client.send(b"quit\r\n")
                        served.append(client.rest())
                except ConnectionRefusedError as error:
                    refused.append(error)

        threads = [threading.Thread(target=connect) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(3):
            os.kill(server.pids()[-1], signal.SIGKILL)
            eventually(lambda number=number: len(server.pids()) == 3 + number)  # type: ignore[misc]
        time.sleep(0.2)
        over.set()
        for thread in threads:
            thread.join()
        assert not refused
        # What the killed workers were serving is lost, nothing else.
        assert len([replies for replies in served if replies != b"+hello\r\n+bye\r\n"]) <= 3 * 4
        assert len(served) > 20
        assert "was killed by signal 9; its replacement starts in 0.0 s" in server.log()


def test_clients_that_wait_for_a_stopped_worker_are_served_by_its_replacement(tmp_path: Path) -> None:
    with Server(tmp_path / "server", connections_per_address=1000) as server:
        with server.client():
            pass  # It listens by now.
        os.kill(server.pids()[0], signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            # Were the queue too short, they would not be connected at all.
            waiting = [stack.enter_context(Client.to(server.address())) for _ in range(300)]
            os.kill(server.pids()[0], signal.SIGKILL)
            assert [client.line() for client in waiting] == [b"+hello"] * 300


def test_a_worker_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        for number in range(1, 4):
            os.kill(server.pids()[-1], signal.SIGKILL)
            eventually(lambda number=number: len(server.pids()) == number + 1)  # type: ignore[misc]
        pauses = [line.rsplit(maxsplit=2)[1] for line in server.log().splitlines() if "replacement" in line]
        assert pauses == ["0.0", "0.5", "1.0"]


def test_killing_the_parent_leaves_no_worker(tmp_path: Path) -> None:
    with Server(tmp_path / "server", workers=2) as server:
        server.parent.kill()
        eventually(lambda: not any(alive(pid) for pid in server.pids()))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_finishes_what_runs_and_says_farewell(
    tmp_path: Path, certificate: tuple[str, str], signum: signal.Signals
) -> None:
    with Server(tmp_path / "server", ("", "/tls"), workers=2, tls=certificate) as server:
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(server.client(endpoint)) for endpoint in (0, 0, 1)]
            busy = stack.enter_context(server.client())
            busy.send(b"slowly 0.3 x\r\nsay behind it\r\n")
            streaming = stack.enter_context(server.client())
            streaming.send(b"stream 100\r\n")
            assert streaming.socket.recv(1) == b"x"
            sending = stack.enter_context(server.client())
            sending.send(b"data 5\r\nxx")
            assert sending.line() == b"+go on"
            quitting = stack.enter_context(server.client())
            quitting.send(b"quit-later\r\n")
            assert quitting.socket.recv(1) == b"+"
            shaking = stack.enter_context(Client.to(server.address(1)))
            eventually(lambda: "began" in server.noted())

            server.parent.send_signal(signum)
            for client in idle:
                assert client.rest() == b"-bye DRAIN\r\n"
            assert quitting.rest() == b"bye\r\n"
            assert shaking.rest() == b""
            # Those that were told may all have been one worker's; the other one has its own socket.
            eventually(lambda: refuses(server.address()))
            assert server.parent.poll() is None
            assert busy.rest() == b"+x\r\n+behind it\r\n-bye DRAIN\r\n"
            assert streaming.rest() == b"x" * (65536 * 100 - 1) + b".\r\n-bye DRAIN\r\n"
            sending.send(b"xxx")
            assert sending.line().startswith(b"+took ")
            assert sending.rest() == b"-bye DRAIN\r\n"
        assert server.parent.wait(10) == 0
        notes = server.noted()
        assert notes.count("closed") == notes.count("opened")
        assert {note for note in notes if note.startswith("stop")} == {f"stop {pid}" for pid in server.pids()}


def test_clients_in_the_queue_of_an_ending_server_are_told(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        (worker,) = server.pids()
        os.kill(worker, signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(Client.to(server.address())) for _ in range(20)]
            server.parent.terminate()
            eventually(lambda: "ending" in server.log())
            os.kill(worker, signal.SIGCONT)
            told = [client.rest() for client in waiting]
        # Those accepted before the signal was read are greeted first.
        assert {reply.removeprefix(b"+hello\r\n") for reply in told} == {b"-bye DRAIN\r\n"}
        assert server.parent.wait(10) == 0


def test_draining_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    with Server(tmp_path / "server", drain_seconds=0.3) as server, server.client() as client, server.client() as reader:
        client.send(b"slowly 2 x\r\n")
        reader.send(b"stream 900\r\n")
        assert reader.socket.recv(1) == b"x"
        eventually(lambda: "began" in server.noted())
        started = time.monotonic()
        server.parent.terminate()
        assert client.rest() == b""
        assert server.parent.wait(10) == 0
        assert time.monotonic() - started < 5
        # The step itself was not cancelled.
        assert {"finished", "reset"} <= set(server.noted())


def test_a_new_certificate_is_used_after_sighup(tmp_path: Path) -> None:
    first = write_certificate(tmp_path)
    files = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with Server(tmp_path / "server", ("/tls",), tls=files, workers=2) as server, server.client() as streaming:

        def serials() -> set[int]:
            return {_serial(server) for _ in range(12)}

        assert serials() == {first}
        streaming_from = int(streaming.ask(b"who").split()[3])
        streaming.send(b"stream 300\r\nquit\r\n")

        second = write_certificate(tmp_path)
        server.parent.send_signal(signal.SIGHUP)
        eventually(lambda: serials() == {second})

        (tmp_path / "key.pem").write_text("broken")
        server.parent.send_signal(signal.SIGHUP)
        eventually(lambda: "the old one stays" in server.log())
        os.kill(next(pid for pid in server.pids() if pid != streaming_from), signal.SIGKILL)
        eventually(lambda: len(server.pids()) == 3)
        assert serials() == {second}
        assert streaming.rest() == b"x" * 65536 * 300 + b".\r\n+bye\r\n"


def _serial(server: Server) -> int:
    """The number of the certificate that a new connection is shown."""
    with Client.to(server.address()) as client:
        der = client.secure().getpeercert(binary_form=True)
    assert der
    return load_der_x509_certificate(der).serial_number


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with Server(tmp_path / "first", workers=2) as first, Server(tmp_path / "second", (first.endpoints[0],)) as second:
        assert second.parent.wait(10) == 2
        assert second.log() == f"Cannot listen on {first.endpoints[0]}: address already in use.\n"
        assert second.noted() == []
        with first.client() as client:
            assert client.ask(b"say x") == b"+x"


def test_an_address_that_is_none_of_ours_is_said(tmp_path: Path) -> None:
    with Server(tmp_path / "server", ("192.0.2.1:8110",)) as server:
        assert server.parent.wait(10) == 2
        assert server.log() == "Cannot listen on 192.0.2.1:8110: cannot assign requested address.\n"


def test_ipv6(tmp_path: Path) -> None:
    try:
        port = free_port(socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with Server(tmp_path / "server", (f"[::1]:{port}",), workers=2) as server, server.client() as client:
        assert client.ask(b"who").startswith(b"+::1 ")
        assert f"listening on [::1]:{port} with" in server.log()


def test_a_unix_socket_replaces_one_that_nobody_serves(tmp_path: Path) -> None:
    with short_directory() as directory:
        path = Path(directory) / "socket"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        with Server(tmp_path / "server", (str(path),), workers=2, connections_per_address=1) as server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            with server.client() as client, server.client(), server.client():
                assert client.ask(b"who").startswith(b"+None 0 False")
            with Server(tmp_path / "second", (str(path),)) as second:
                assert second.parent.wait(10) == 2
                assert second.log() == f"Cannot listen on {path}: another server listens there.\n"
        assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    with short_directory() as directory:
        path = Path(directory) / "file"
        path.write_text("mine")
        with Server(tmp_path / "server", (str(path),)) as server:
            assert server.parent.wait(10) == 2
            assert "a file that is no socket is there" in server.log()
        assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:110", Endpoint("127.0.0.1", 110)),
        ("[::1]:110", Endpoint("::1", 110)),
        ("localhost:110", Endpoint("localhost", 110)),
        ("/run/mailhost/lmtp", Endpoint(path=Path("/run/mailhost/lmtp"))),
        ("./lmtp:1", Endpoint(path=Path("lmtp:1"))),
    ],
)
def test_endpoints_are_read_and_written(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert Endpoint.parse(str(endpoint) if "/" not in text else text) == endpoint


@pytest.mark.parametrize("text", ["", "110", ":110", "127.0.0.1", "::1:110", "host:", "host:x", "host:65536", "host:²"])
def test_what_is_no_endpoint_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address: write .*\."):
        Endpoint.parse(text)


def test_implicit_tls_needs_a_certificate() -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        Config(endpoints=(Endpoint.parse("127.0.0.1:995", implicit_tls=True),), workers=1, delimiter=b"\n")
