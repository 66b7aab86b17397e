"""PostgreSQL and Redis for one-command use: real servers from wheels, shared by commands beside each other.

    with servers(data) as urls:
        ...  # urls.postgres, urls.redis

Whoever uses a server holds a shared lock, which the kernel lets go of however the process ends. Each server
has a *guardian*, a small process of its own that starts it, starts it again when it dies, and stops it once
nobody holds that lock. If the guardian dies its server dies with it, and whoever still uses the server starts
a new one. So there is no process id on disk that could lie after a crash, and nothing is left behind.

Only the standard library is imported here: guardians are to be small and quick to start.
"""

from mailhost.embedded.home import EmbeddedError
from mailhost.embedded.joining import Urls, servers

__all__ = ["EmbeddedError", "Urls", "servers"]
