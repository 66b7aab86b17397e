"""The asyncio line server that both listeners run on; it knows no protocol and no app."""

from mailhost.lineserver.config import Config, Endpoint, TLSFiles
from mailhost.lineserver.dialogue import Application, Dialogue, End, Peer, Reply, Step, Then, Wire
from mailhost.lineserver.listeners import ListenError
from mailhost.lineserver.tls import TLSError
from mailhost.lineserver.workers import serve

__all__ = [
    "Application",
    "Config",
    "Dialogue",
    "End",
    "Endpoint",
    "ListenError",
    "Peer",
    "Reply",
    "Step",
    "TLSError",
    "TLSFiles",
    "Then",
    "Wire",
    "serve",
]
