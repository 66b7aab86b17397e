"""A real HTTP server that webhooks are sent to: it keeps what came, and answers as a test says."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What came."""

    path: str
    headers: dict[str, str]  # by name in small letters
    body: bytes


@dataclass
class Receiver:
    """Answers 200, or what `answers` says, one after the other."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: list[int | Callable[[Any], None]] = field(default_factory=list)
    connections: int = 0


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """One on loopback; with `tls` it speaks HTTPS."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.requests.append(Request(self.path, headers, body))
            answer = state.answers.pop(0) if state.answers else 200
            if callable(answer):
                answer(self)
                return
            self.send_response(answer)
            if 300 <= answer < 400:
                self.send_header("Location", state.url + "/elsewhere")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            pass  # clients that go away are what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def drip(handler: Any) -> None:
    """Answer an octet at a time, for as long as somebody reads."""
    handler.close_connection = True
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        pass


def flood(handler: Any) -> None:
    """Answer with no end."""
    handler.close_connection = True
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass


def hang_up(handler: Any) -> None:
    """Close without an answer."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def garbage(handler: Any) -> None:
    """Answer, but not in HTTP."""
    handler.close_connection = True
    handler.wfile.write(b"220 mail.example.test ESMTP\r\n")
