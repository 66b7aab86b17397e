#!/usr/bin/env python
"""Run a management command, with the embedded servers started first if it needs them."""

import os
import sys
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path

# These read and write files only, so they must not wait for a database.
# `up` and `test` are not among them. `migrate --plan` and the like do look into the database.
WITHOUT_SERVERS = {
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "makemigrations",
    "startapp",
    "version",
    "writedocs",
}


def needs_servers(arguments: list[str]) -> bool:
    """Tell whether a command line (without the program's name) is of a command that uses the database or Redis."""
    if not arguments or {"--help", "-h", "--version"} & set(arguments):
        return False
    if arguments[0] == "check" and "--database" in arguments:
        return True
    return arguments[0] not in WITHOUT_SERVERS


def exit_code(arguments: list[str]) -> int:
    """Return how a command ends that could not be carried out: where an MTA waits, with "try again later"."""
    return os.EX_TEMPFAIL if arguments[:1] == ["deliver"] else 1


def _close_connections() -> None:
    """Say goodbye to the database, which otherwise logs that somebody left without."""
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    with suppress(ImproperlyConfigured):  # said by the command itself
        for connection in connections.all(initialized_only=True):
            connection.close()
            if close_pool := getattr(connection, "close_pool", None):
                close_pool()


def main() -> None:
    """Set the embedded servers' URLs where the environment names no others, then run the command."""
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from mailhost import embedded, environment

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailhost.settings")
    variables = {"postgres": "DATABASE_URL", "redis": "REDIS_URL"}
    wanted = [name for name, variable in variables.items() if not os.environ.get(variable, "").strip()]
    try:
        with ExitStack() as until_the_end:
            if wanted and needs_servers(sys.argv[1:]):
                data = environment.read("MAILHOST_DATA", "var", lambda text: Path(text).expanduser().absolute())
                urls = until_the_end.enter_context(embedded.servers(data, wanted=wanted))
                os.environ.update({variables[name]: getattr(urls, name) for name in wanted})
            try:
                execute_from_command_line(sys.argv)
            finally:
                _close_connections()
    except (embedded.EmbeddedError, ImproperlyConfigured) as error:
        print(f"manage.py: {error}", file=sys.stderr)
        sys.exit(exit_code(sys.argv[1:]))
    except Exception:
        traceback.print_exc()
        sys.exit(exit_code(sys.argv[1:]))


if __name__ == "__main__":
    main()
