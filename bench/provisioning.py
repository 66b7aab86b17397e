"""`make bench-provisioning`: what the next mailbox costs where there are few, and where there are very many."""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import django

from mailhost import embedded


def main() -> int:
    """Fill a database of its own, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.provisioning", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 200_000], metavar="N", help="mailboxes")
    parser.add_argument("--explain", action="store_true", help="also print the plans of what is looked up")
    options = parser.parse_args()
    with ExitStack() as until_the_end:
        directory = until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="mailhost-bench-"))
        Path(directory).chmod(0o711)  # the servers' account passes through
        (Path(directory) / "static").mkdir()
        urls = until_the_end.enter_context(embedded.servers(Path(directory), wanted=("postgres", "redis")))
        os.environ |= {
            "DATABASE_URL": urls.postgres,
            "REDIS_URL": urls.redis,
            "MAILHOST_DATA": directory,
            "DJANGO_SETTINGS_MODULE": "mailhost.settings",
        }
        django.setup()
        from bench.growth import Growth

        growth = until_the_end.enter_context(Growth())
        columns = []
        for size in options.sizes:
            growth.fill(size)
            columns.append(growth.measured())
            if options.explain:
                growth.explain()
    _print(columns)
    return 0


def _print(columns: list[dict[str, str]]) -> None:
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")
        if name == next(iter(columns[0])):
            print("|---" * (len(columns) + 1) + "|")


if __name__ == "__main__":
    sys.exit(main())
