"""What a guardian must know about the server it guards."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import ClassVar

from mailhost.embedded.home import account_for, socket_directory


class Server(ABC):
    """One server with its files below `home`. `durable=False` is for tests: a power cut may lose data."""

    name: ClassVar[str]  # of its files
    title: ClassVar[str]  # for people
    stop_signals: ClassVar[Sequence[tuple[Signals, float]]]  # signal, then how long to wait for the end, in seconds

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.home = home
        self.durable = durable
        self.account = account_for(home)
        self.sockets = socket_directory(home)
        self.users_lock = home / f"{self.name}.users"  # shared: somebody uses it
        self.guardian_lock = home / f"{self.name}.guardian"  # the guardian, or a server that it left, is alive
        self.ready_lock = home / f"{self.name}.ready"  # it answers
        self.log = home / f"{self.name}.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients; known once the server has been ready."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Make what is missing on disk, and return the command line that starts it in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether it takes clients now."""
