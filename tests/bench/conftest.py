"""The generator, compiled once; and peers that say what a test tells them to."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.generator import NoCompiler, compiled

Conversation = Callable[[socket.socket], None]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compiled(tmp_path_factory.mktemp("build"))
    except NoCompiler as reason:
        pytest.skip(str(reason))


@pytest.fixture
def peer() -> Iterator[Callable[[Conversation], int]]:
    """Start a peer on loopback that holds this conversation with whoever connects; returns its port."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def talk(conversation: Conversation, connection: socket.socket) -> None:
        # The generator hangs up when its time is over.
        with connection, contextlib.suppress(OSError):
            conversation(connection)

    def accept(listener: socket.socket, conversation: Conversation) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=talk, args=(conversation, connection))
            threads.append(thread)
            thread.start()

    def start(conversation: Conversation) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        thread = threading.Thread(target=accept, args=(listener, conversation))
        thread.start()
        threads.append(thread)
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(10)
