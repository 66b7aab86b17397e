"""The guardian's own process: `python -m mailhost.embedded SERVER HOME durable|fast`."""

import sys
from pathlib import Path

from mailhost.embedded.guardian import guard
from mailhost.embedded.joining import SERVERS

if __name__ == "__main__":
    name, home, durability = sys.argv[1:]
    sys.exit(guard(SERVERS[name](Path(home), durable=durability == "durable")))
