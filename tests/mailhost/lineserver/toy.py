"""A small line protocol to test the line server with; run as a module it serves until told to end."""

import asyncio
import hashlib
import ipaddress
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from mailhost.lineserver import (
    Application,
    Config,
    Dialogue,
    End,
    Endpoint,
    ListenError,
    Reply,
    Step,
    Then,
    TLSError,
    TLSFiles,
    Wire,
    serve,
)


class Toy(Dialogue):
    """Answers lines like `say x`; `+` begins what went well, `-` what did not."""

    line_limit = 64

    def __init__(self, application: "ToyApplication", wire: Wire) -> None:
        self._application = application
        self._wire = wire
        self._said_in_clear = b""
        self._wanted = 0
        self._digest = hashlib.sha256()
        self.idle_limit = application.idle_limit
        self.established = application.established

    def greet(self) -> Step:
        return Reply(b"+hello\r\n")

    def receive(self, line: bytes) -> Step:
        command, _, argument = line.partition(b" ")
        handler = COMMANDS.get(command)
        return handler(self, argument) if handler else Reply(b"-what is %d octets\r\n" % len(line))

    def overlong(self) -> Step:
        return Reply(b"-overlong\r\n")

    def take(self, octets: bytes) -> tuple[int, Step | None]:
        part = octets[: self._wanted]
        self._digest.update(part)
        self._wanted -= len(part)
        if self._wanted:
            return len(part), None
        return len(part), self._later(0.001, b"+took " + self._digest.hexdigest().encode())

    def secured(self) -> None:
        self._said_in_clear = b""

    def farewell(self, why: End) -> bytes:
        return b"-bye %s\r\n" % why.name.encode()

    async def closed(self) -> None:
        await asyncio.sleep(0.001)
        self._application.note("closed")

    def _say(self, argument: bytes) -> Step:
        self._said_in_clear = argument
        return Reply(b"+" + argument + b"\r\n")

    def _said(self, argument: bytes) -> Step:
        return Reply(b"+" + self._said_in_clear + b"\r\n")

    def _login(self, argument: bytes) -> Step:
        self.established = True
        return Reply(b"+in\r\n")

    def _slowly(self, argument: bytes) -> Step:
        seconds, _, text = argument.partition(b" ")
        return self._later(float(seconds), b"+" + text)

    async def _later(self, seconds: float, text: bytes) -> Reply:
        self._application.note("began")
        await asyncio.sleep(seconds)
        self._application.note("finished")
        return Reply(text + b"\r\n")

    async def _stream(self, argument: bytes) -> Reply:
        """So many times 64 KiB."""
        try:
            for _ in range(int(argument)):
                await self._wire.send(b"x" * 65536)
        except ConnectionResetError:
            self._application.note("reset")
            raise
        return Reply(b".\r\n")

    async def _drip(self, argument: bytes) -> Reply:
        """After so many seconds, a hundred octets often, with nothing to wait for in between."""
        await asyncio.sleep(float(argument))
        try:
            for _ in range(500):
                await self._wire.send(b"z" * 100)
        except ConnectionResetError:
            self._application.note("reset")
            raise
        return Reply(b".\r\n")

    def _ahead(self, argument: bytes) -> Step:
        return Reply(b"+" + self._wire.ahead.replace(b"\r\n", b"|") + b"\r\n")

    def _blob(self, argument: bytes) -> Step:
        return Reply(b"y" * int(argument) + b"\r\n")

    def _data(self, argument: bytes) -> Step:
        self._wanted = int(argument)
        self._digest = hashlib.sha256()
        return Reply(b"+go on\r\n", Then.READ_DATA)

    def _stls(self, argument: bytes) -> Step:
        return Reply(b"+begin\r\n", Then.START_TLS)

    def _who(self, argument: bytes) -> Step:
        address, port, secure = self._wire.peer
        return Reply(f"+{address} {port} {secure} {os.getpid()}\r\n".encode())

    def _fail(self, argument: bytes) -> Step:
        raise ValueError("a fault of the toy")

    async def _fail_later(self, argument: bytes) -> Reply:
        await asyncio.sleep(0.001)
        raise ValueError("a fault of the toy")

    async def _fail_within(self, argument: bytes) -> Reply:
        await self._wire.send(b"+part\r\n")
        raise ValueError("a fault of the toy")

    def _end(self, argument: bytes) -> Step:
        """In so many seconds, from outside, with a word."""
        seconds, _, word = argument.partition(b" ")
        asyncio.get_running_loop().call_later(float(seconds), self._wire.end, b"-" + word + b"\r\n")
        return Reply(b"+in a moment\r\n")

    def _quit(self, argument: bytes) -> Step:
        return Reply(b"+bye\r\n", Then.CLOSE)

    async def _quit_later(self, argument: bytes) -> Reply:
        await asyncio.sleep(0.01)
        return Reply(b"+bye\r\n", Then.CLOSE)


COMMANDS: dict[bytes, Callable[[Toy, bytes], Reply | Awaitable[Reply]]] = {
    b"say": Toy._say,
    b"ahead": Toy._ahead,
    b"said": Toy._said,
    b"login": Toy._login,
    b"slowly": Toy._slowly,
    b"stream": Toy._stream,
    b"drip": Toy._drip,
    b"blob": Toy._blob,
    b"data": Toy._data,
    b"stls": Toy._stls,
    b"who": Toy._who,
    b"fail": Toy._fail,
    b"fail-later": Toy._fail_later,
    b"fail-within": Toy._fail_within,
    b"end": Toy._end,
    b"quit": Toy._quit,
    b"quit-later": Toy._quit_later,
}


class ToyApplication(Application):
    """Notes what happens in a file, a line each."""

    def __init__(self, journal: Path, *, idle_limit: float, established: bool) -> None:
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.idle_limit = idle_limit
        self.established = established

    def note(self, what: str) -> None:
        os.write(self._journal, what.encode() + b"\n")

    async def start(self) -> None:
        self.note(f"start {os.getpid()}")

    def dialogue(self, wire: Wire) -> Dialogue:
        self.note("opened")
        return Toy(self, wire)

    async def stop(self) -> None:
        await asyncio.sleep(0.001)
        self.note(f"stop {os.getpid()}")


def main() -> int:
    """Serve as the JSON in the first argument says."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    settings = json.loads(sys.argv[1])
    settings["endpoints"] = tuple(
        Endpoint.parse(text.removesuffix("/tls"), implicit_tls=text.endswith("/tls")) for text in settings["endpoints"]
    )
    settings["delimiter"] = settings.get("delimiter", "\r\n").encode()
    if "tls" in settings:
        settings["tls"] = TLSFiles(*map(Path, settings["tls"]))
    settings["proxy_networks"] = tuple(map(ipaddress.ip_network, settings.get("proxy_networks", ())))
    journal = Path(settings.pop("journal"))
    idle_limit = settings.pop("idle_limit", 60)
    established = settings.pop("established", True)
    try:
        return serve(
            Config(**settings),
            lambda: ToyApplication(journal, idle_limit=idle_limit, established=established),
            name="toy",
        )
    except (ListenError, TLSError) as error:
        print(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
