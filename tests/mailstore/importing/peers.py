"""Mail servers that do as a test says, on real sockets."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from mailstore.importing.wire import Target

Dialogue = Callable[[BinaryIO, BinaryIO], None]
"""What is said to one client: reads from the first, writes to the second."""


@contextmanager
def peer(dialogue: Dialogue) -> Iterator[int]:
    """A server with this dialogue, for as many clients as come; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def talk(client: socket.socket) -> None:
        files = client.makefile("rb"), client.makefile("wb", buffering=0)
        with client, files[0] as reads, files[1] as writes, suppress(OSError, EOFError):
            dialogue(reads, writes)  # type: ignore[arg-type] # it is raw

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=talk, args=(client,)))
                threads[-1].start()

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.join()
        for thread in threads:
            thread.join()


def target(port: int, *, login: str = "an", password: str = "secret", allow_private: bool = True) -> Target:
    """A peer, in clear."""
    return Target(
        host="127.0.0.1", port=port, security="none", login=login, password=password, allow_private=allow_private
    )


def line(reads: BinaryIO) -> bytes:
    """What the client says."""
    said = reads.readline()
    if not said:
        raise EOFError
    return said.rstrip(b"\r\n")


def pop3(
    messages: Sequence[tuple[str, bytes]],
    *,
    uidl: bool = True,
    capa: bytes = b"USER\r\nUIDL\r\n",
    instead: dict[bytes, bytes] | None = None,
    seen: list[bytes] | None = None,
) -> Dialogue:
    """A POP3 server with these messages, by their unique-ids. `instead` is what it says to some command lines."""

    def dialogue(reads: BinaryIO, writes: BinaryIO) -> None:
        writes.write(b"+OK\r\n")
        while True:
            said = line(reads)
            if seen is not None:
                seen.append(said)
            command, *arguments = said.split()
            if instead and said in instead:
                writes.write(instead[said])
                if not instead[said].endswith(b"\n"):
                    return
            elif command == b"CAPA":
                writes.write(b"+OK\r\n" + capa + b".\r\n" if capa else b"-ERR\r\n")
            elif command == b"UIDL" and uidl:
                rows = (f"{number} {name}\r\n" for number, (name, _) in enumerate(messages, 1))
                writes.write(b"+OK\r\n" + "".join(rows).encode() + b".\r\n")
            elif command == b"LIST":
                rows = (f"{number} {len(octets)}\r\n" for number, (_, octets) in enumerate(messages, 1))
                writes.write(b"+OK\r\n" + "".join(rows).encode() + b".\r\n")
            elif command == b"RETR":
                octets = (b"\r\n" + messages[int(arguments[0]) - 1][1]).replace(b"\r\n.", b"\r\n..")[2:]
                writes.write(b"+OK\r\n" + octets + b".\r\n")
            elif command == b"AUTH":
                writes.write(b"+ \r\n")
                line(reads)
                writes.write(b"+OK\r\n")
            elif command == b"QUIT":
                writes.write(b"+OK\r\n")
                return
            else:
                writes.write(b"+OK\r\n" if command in (b"USER", b"PASS") else b"-ERR\r\n")

    return dialogue


def imap(
    messages: Sequence[tuple[int, bytes]],
    *,
    validity: int = 1000,
    capability: bytes = b"IMAP4rev1",
    instead: dict[bytes, bytes] | None = None,
    seen: list[bytes] | None = None,
) -> Dialogue:
    """An IMAP server with these messages, by their UIDs. `instead` is what it says to some commands, by their words."""

    def dialogue(reads: BinaryIO, writes: BinaryIO) -> None:
        writes.write(b"* OK\r\n")
        while True:
            tag, _, said = line(reads).partition(b" ")
            if seen is not None:
                seen.append(said)
            upper = said.upper()
            if instead and said in instead:
                writes.write(instead[said].replace(b"TAG", tag))
                continue
            if upper == b"CAPABILITY":
                writes.write(b"* CAPABILITY " + capability + b"\r\n")
            elif upper.startswith(b"LOGIN"):
                for _ in range(2):
                    writes.write(b"+ go on\r\n")
                    line(reads)
            elif upper.startswith(b"AUTHENTICATE"):
                writes.write(b"+ \r\n")
                line(reads)
            elif upper.startswith(b"EXAMINE"):
                writes.write(b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] valid\r\n" % (len(messages), validity))
            elif upper.startswith(b"UID FETCH 1:*"):
                for number, (uid, _) in enumerate(messages, 1):
                    date = b'INTERNALDATE " 1-Feb-2020 10:00:00 +0100"'
                    writes.write(b"* %d FETCH (UID %d %s)\r\n" % (number, uid, date))
            elif upper.startswith(b"UID FETCH"):
                wanted = int(said.split()[2])
                for number, (uid, octets) in enumerate(messages, 1):
                    if uid == wanted:
                        writes.write(b"* %d EXISTS\r\n" % len(messages))
                        writes.write(b"* %d FETCH (UID %d BODY[] {%d}\r\n" % (number, uid, len(octets)))
                        writes.write(octets + b")\r\n")
            elif upper == b"LOGOUT":
                writes.write(b"* BYE\r\n")
            writes.write(tag + b" OK done\r\n")

    return dialogue
