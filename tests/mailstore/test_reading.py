"""Looking into messages in a process that may break: what comes of it, whatever was sent."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from mailstore import reading
from mailstore.mime import child
from mailstore.models import Message
from tests.fixtures import Customer
from tests.mailstore import post
from tests.mailstore.mime.test_sanitising import PNG

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
    assert time.monotonic() - began < 2 * (reading.SECONDS + 1)
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
    with pytest.raises(reading.CannotBeShown):
        reading.page(message, directory=tmp_path)
    for turn in turns:
        turn.__exit__(None, None, None)
    monkeypatch.undo()
    assert reading.page(message, directory=tmp_path)


# --- The process ---------------------------------------------------------------------------------------------------


def in_the_child(code: str, directory: Path) -> Any:
    """How a child ends in which that runs instead of a look at a message."""
    instead = f"import mailstore.mime.child as child; child._answer = lambda *given: exec({code!r}); main()"
    start = reading._START.removesuffix("main()") + instead
    with (directory / "input").open("w+b") as source:
        source.write(b"x")
        source.flush()
        return subprocess.run(
            [sys.executable, "-I", "-c", start, str(reading.MEMORY), "2", "1000", "text"],
            stdin=source, capture_output=True, text=True, env={}, cwd="/", timeout=20, check=False,
        )  # fmt: skip


def test_the_child_has_bounds_and_no_secrets(tmp_path: Path) -> None:
    told = in_the_child("import os, sys; print(sorted(os.environ), 'django' in sys.modules)", tmp_path)
    assert (told.returncode, told.stdout) == (0, "['LC_CTYPE'] False\n"), told.stderr
    assert in_the_child("bytearray(400 * 2**20)", tmp_path).stderr.strip().endswith("MemoryError")
    assert in_the_child("while True: pass", tmp_path).returncode < 0  # killed
    full = in_the_child(f"open({str(tmp_path / 'x')!r}, 'wb', 0).write(b'x' * 2000)", tmp_path)
    assert (tmp_path / "x").stat().st_size == 1000, full.stderr
    raised = in_the_child("import resource; resource.setrlimit(resource.RLIMIT_CPU, (9, 9))", tmp_path)
    assert os.geteuid() == 0 or "ValueError" in raised.stderr


def test_who_waits_to_read_does_not_take_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SECONDS", 1)

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
        time.sleep(0.2)
        began = time.monotonic()
        assert not wait()
        assert time.monotonic() - began < 0.5
        assert not any(one.result() for one in waiting)
    assert wait()
