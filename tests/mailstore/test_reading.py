"""Looking into messages in a process that may break: what comes of it, whatever was sent."""

import binascii
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from django.db import connection

from mailstore import headers, reading
from mailstore.mime import child, confinement
from mailstore.models import Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.mime.test_sanitising import PNG
from tests.servers import eventually

pytestmark = pytest.mark.django_db(transaction=True)


def stored(acme: Customer, octets: bytes) -> Message:
    [*_, message] = post.fill(acme.mailbox, [octets])
    return message


def letter() -> EmailMessage:
    """A message with all that one might have."""
    message = EmailMessage(policy=SMTP)
    message["Subject"] = "Hoá đơn tháng 11"
    message["From"] = "Bình <binh@elsewhere.test>"
    message.set_content("Chào bạn\nxem tệp\n")
    message.add_alternative('<p>Chào <b>bạn</b> <img src="cid:logo"><img src="https://x/"></p>\n', subtype="html")
    message.get_payload()[1].add_related(PNG, "image", "png", cid="<logo>", filename="logo.png")  # type: ignore[index,union-attr]
    message.add_attachment(b"%PDF" * 200_000, maintype="application", subtype="pdf", filename="tháng 11.pdf")
    return message


def test_a_message_is_read(acme: Customer, tmp_path: Path) -> None:
    message = stored(acme, letter().as_bytes())

    page = reading.page(message, directory=tmp_path)
    assert page.fields[0] == ("Return-Path", "<binh@elsewhere.test>")
    assert ("Subject", "Hoá đơn tháng 11") in page.fields
    assert (page.text, page.has_html, page.is_whole) == ("Chào bạn\nxem tệp\n", True, True)
    assert page.attachments == (
        reading.Attachment(2, "logo.png", "image/png", len(PNG)),
        reading.Attachment(3, "tháng 11.pdf", "application/pdf", 800_000),
    )

    shown = reading.frame(message, directory=tmp_path)
    assert "<p>Chào <b>bạn</b>" in shown
    assert shown.count("data:image/png;base64,") == shown.count("src=") == 1

    name, file = reading.attachment(message, 3, directory=tmp_path)
    with file:
        assert (name, file.read()) == ("tháng 11.pdf", b"%PDF" * 200_000)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("fields", "body", "text"),
    [
        ("", "plain\r\n", "plain\n"),
        ("Content-Type: text/html\r\n", "<p>only <b>HTML</b><script>x</script></p>", "only HTML"),
        ("Content-Type: text/plain; charset=windows-1258\r\nContent-Transfer-Encoding: quoted-printable\r\n",
         "=D0=E0 N=E3ng", "Đà Năng"),
        ("Content-Type: text/plain; charset=no-such-charset\r\n", "cà phê", "cà phê"),
        ("Content-Type: text/plain; charset=zlib\r\n", "x", "x"),
        ("Content-Type: text/plain; charset=utf-16\r\n", "\x00\x01\x02", None),
        ("", "a\tb\x1b[31m\u202ec\r\n  d\x00", "a\tb[31mc\n  d"),
    ],
)  # fmt: skip
def test_text_is_text(acme: Customer, tmp_path: Path, fields: str, body: str, text: str | None) -> None:
    page = reading.page(stored(acme, f"{fields}Subject: x\r\n\r\n{body}".encode()), directory=tmp_path)
    if text is not None:
        assert page.text.removesuffix("\n") == text.removesuffix("\n")


def test_html_stands_in_for_a_text_that_says_nothing(acme: Customer, tmp_path: Path) -> None:
    message = EmailMessage(policy=SMTP)
    message.set_content(" \n")
    message.add_alternative("<p>Newsletter</p>", subtype="html")
    page = reading.page(stored(acme, message.as_bytes()), directory=tmp_path)
    assert (page.text, page.attachments) == ("Newsletter", ())


def test_a_long_text_is_cut_and_that_is_said(acme: Customer, tmp_path: Path) -> None:
    message = stored(acme, b"\r\n" + b"0123456789\r\n" * 100_000)
    page = reading.page(message, directory=tmp_path)
    assert not page.is_whole
    assert 0 < len(page.text) <= child.TEXT


def test_there_is_no_attachment_of_another_number(acme: Customer, tmp_path: Path) -> None:
    message = stored(acme, letter().as_bytes())
    for number in (4, 99, 10**6):
        with pytest.raises(reading.NoSuchPart):
            reading.attachment(message, number, directory=tmp_path)


def test_html_that_takes_too_long_is_given_up_in_time(acme: Customer, tmp_path: Path) -> None:
    message = stored(acme, b"Content-Type: text/html\r\n\r\n" + b"<div>" * 200_000)  # a minute, if one let it
    began = time.monotonic()
    with pytest.raises(reading.CannotBeShown):
        reading.frame(message, directory=tmp_path)
    with pytest.raises(reading.CannotBeShown):
        reading.page(message, directory=tmp_path)
    assert time.monotonic() - began < 2 * (reading.SECONDS + 5)
    assert reading.page(stored(acme, b"\r\nnext"), directory=tmp_path).text.strip() == "next"


def test_a_message_that_is_purged_meanwhile_cannot_be_shown(acme: Customer, tmp_path: Path) -> None:
    message = stored(acme, b"\r\nx")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM mailstore_message WHERE id = %s", (message.pk,))
    with pytest.raises(reading.CannotBeShown):
        reading.page(message, directory=tmp_path)


def test_a_directory_that_is_full_or_gone_is_no_fault_of_the_page(acme: Customer, tmp_path: Path) -> None:
    with pytest.raises(reading.CannotBeShown):
        reading.page(stored(acme, b"\r\nx"), directory=tmp_path / "gone")


def test_only_some_look_at_once(acme: Customer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = stored(acme, b"\r\nx")
    monkeypatch.setattr(reading, "SECONDS", 0.1)
    turns = [reading._turn() for _ in range(reading.AT_ONCE)]
    for turn in turns:
        turn.__enter__()
    with pytest.raises(reading.Busy):
        reading.page(message, directory=tmp_path)
    for turn in turns:
        turn.__exit__(None, None, None)
    monkeypatch.undo()
    assert reading.page(message, directory=tmp_path)


# --- The process ---------------------------------------------------------------------------------------------------


class InTheChild:
    """Runs code instead of a look at a message, where that would be looked at."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch

    def __call__(self, code: str) -> tuple[int, str]:
        """How the process ended, and what it said."""
        before = (
            "import binascii, ctypes, errno, os, resource, socket; from mailstore import headers;"
            " from mailstore.mime import child"
        )
        start = (
            f"{reading._START.removesuffix('main()')}{before}; child._answer = lambda *given: exec({code!r}); main()"
        )
        self._monkeypatch.setattr(reading, "_START", start)
        self._monkeypatch.setattr(reading, "SECONDS", 120)  # its bounds are not those of who waits for it
        with (self.directory / "input").open("w+b") as source, (self.directory / "answer").open("w+b") as answer:
            source.write(b"x")
            source.flush()
            try:
                status = reading._run(source, answer, "text", 1, 1000)
            finally:
                self._monkeypatch.undo()
            answer.seek(0)
            return status, answer.read().decode()

    def refused(self, expression: str) -> str:
        """The name of the error number with which the system refuses this there; "" if it does not."""
        lines = ("try:", f"  {expression}", "except OSError as error:", "  print(errno.errorcode[error.errno], end='')")
        status, said = self("\n".join(lines))
        assert status == 0
        return said


@pytest.fixture
def in_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InTheChild:
    return InTheChild(tmp_path, monkeypatch)


def test_the_child_has_bounds(in_the_child: InTheChild) -> None:
    assert in_the_child("bytearray(400 * 2**20)")[0] == 1
    assert in_the_child("while True: pass")[0] == -signal.SIGKILL
    status, said = in_the_child("print('x' * 2000, flush=True)")
    assert status != 0
    assert len(said) == 1000
    limits = "print(*(resource.getrlimit(one) for one in (resource.RLIMIT_NPROC, resource.RLIMIT_CORE)))"
    assert in_the_child(limits) == (0, "(0, 0) (0, 0)\n")


def test_the_child_has_no_secrets(in_the_child: InTheChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://mailhost:secret@192.0.2.1/mailhost")
    with socket.socket() as inherited:  # as a connection to the database might be
        inherited.set_inheritable(True)
        descriptors = """
for number in range(1024):
    try:
        os.fstat(number)
    except OSError:
        pass
    else:
        print(number)
"""
        assert in_the_child(descriptors) == (0, "0\n1\n2\n3\n")  # 3 is the message again, for its mapping
    told = in_the_child("print(sorted(os.environ), 'django' in sys.modules, os.getcwd())")
    assert told == (0, "['LC_CTYPE'] False /\n")


def test_the_child_makes_no_descriptor(in_the_child: InTheChild) -> None:
    database = connection.get_connection_params()["host"]
    for attempt in (
        "open('/etc/passwd')",
        f"open({str(in_the_child.directory / 'new')!r}, 'wb')",
        f"open('/proc/{os.getpid()}/environ')",
        f"socket.socket(socket.AF_UNIX).connect({database!r})",
        "socket.create_connection(('127.0.0.1', 6379))",
        "os.close(0); os.open('/etc/passwd', os.O_RDONLY)",  # its number is free
        "os.dup(0)",
        "os.pipe()",
        "os.memfd_create('x')",
    ):
        assert in_the_child.refused(attempt) in {"EMFILE", "EINVAL"}, attempt
    assert not (in_the_child.directory / "new").exists()
    raised, _ = in_the_child("resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))")
    assert raised or os.geteuid() == 0


@pytest.mark.skipif(confinement.landlock() < 1, reason="there is no Landlock")
def test_the_child_does_nothing_to_files_and_processes_either(in_the_child: InTheChild) -> None:
    file = in_the_child.directory / "file"
    file.write_text("whole")
    attempts = {
        f"os.unlink({str(file)!r})": 1,
        f"os.rename({str(file)!r}, {str(file) + '.new'!r})": 1,
        f"os.mkdir({str(file) + '.new'!r})": 1,
        f"os.truncate({str(file)!r}, 0)": 3,
        f"os.execve({sys.executable!r}, ['python'], {{}})": 1,
        f"os.kill({os.getpid()}, 0)": 6,
    }
    for attempt, since in attempts.items():
        if confinement.landlock() >= since:
            assert in_the_child.refused(attempt) in {"EACCES", "EPERM"}, attempt
    assert file.read_text() == "whole"

    attached = f"""
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, {os.getpid()}, None, None) < 0:  # PTRACE_ATTACH; reading memory is asked the same
    print(errno.errorcode[ctypes.get_errno()])
"""
    assert in_the_child(attached) == (0, "EPERM\n")


def test_the_child_knows_every_charset_all_the_same(in_the_child: InTheChild) -> None:
    text = "".join(headers.characters(b"\xc3\xa0\xe1\x1b$B8l", charset) for charset in headers._CHARSETS)
    said = """
text = "".join(headers.characters(b"\\xc3\\xa0\\xe1\\x1b$B8l", charset) for charset in headers._CHARSETS)
print(binascii.crc32(text.encode("utf-8", "replace")))
"""
    assert in_the_child(said) == (0, f"{binascii.crc32(text.encode('utf-8', 'replace'))}\n")


def test_a_host_with_letters_beyond_ascii_is_looked_at(acme: Customer, tmp_path: Path) -> None:
    html = '<a href="https://tháng.example.test/">x</a><a href="https://[::1]/">y</a>'
    message = stored(acme, b"Content-Type: text/html; charset=utf-8\r\n\r\n" + html.encode())
    assert "x" in reading.frame(message, directory=tmp_path)


def test_who_waits_to_read_does_not_take_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SECONDS", 2)

    def wait() -> bool:
        try:
            with reading._turn():
                return True
        except reading.CannotBeShown:
            return False

    with ExitStack() as looking, ThreadPoolExecutor() as threads:
        for _ in range(reading.AT_ONCE):
            looking.enter_context(reading._turn())
        waiting = [threads.submit(wait) for _ in range(reading.AT_ONCE)]
        eventually(lambda: reading._seats._value == 0)
        assert not wait()
        assert not any(one.done() for one in waiting)
        assert not any(one.result() for one in waiting)
    assert wait()
