"""The asyncio line server that both listeners run on; it knows no protocol and no app."""

from mailhost.lineserver.config import Config, Endpoint, TLSFiles
from mailhost.lineserver.dialogue import Application, Dialogue, End, Peer, Reply, Step, Then, Wire

__all__ = [
    "Application",
    "Config",
    "Dialogue",
    "End",
    "Endpoint",
    "Peer",
    "Reply",
    "Step",
    "TLSFiles",
    "Then",
    "Wire",
]
