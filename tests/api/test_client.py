"""A typed client that is generated from docs/openapi.json, as docs/api.md shows it.

`pip install openapi-python-client`, in an environment of its own: whoever generates a client needs it, and nobody else.
Its command is looked for on the PATH.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.web import Web
from tests.system import PROJECT

GENERATOR = shutil.which("openapi-python-client")

SESSION = """\
import sys

from mailhost_client import AuthenticatedClient
from mailhost_client.api.mailboxes import (
    mailboxes_bulk_create, mailboxes_destroy, mailboxes_list, mailboxes_retrieve, mailboxes_update,
)
from mailhost_client.models import (
    DryRun, ItemRequest, ItemResults, ItemsRequest, MailboxShown, MailboxWantedRequest, PaginatedMailboxShownList,
    Problem,
)

client = AuthenticatedClient(sys.argv[1], token=sys.argv[2])
wanted = MailboxWantedRequest(name="Binh", quota_octets=2 * 2**30)

match mailboxes_update.sync("typed@example.test", client=client, body=wanted, dry_run=True):
    case DryRun() as dry:
        print("would", dry.would.summary)
match mailboxes_update.sync("typed@example.test", client=client, body=wanted):
    case MailboxShown() as mailbox:
        print("made", mailbox.address, mailbox.quota_octets)
match mailboxes_update.sync("typed@globex.test", client=client, body=wanted):
    case Problem(code=code):
        print("refused", code.value)
items = [ItemRequest(address=f"typed{number}@example.test") for number in range(3)]
match mailboxes_bulk_create.sync(client=client, body=ItemsRequest(items=items, atomic=True)):
    case ItemResults(results=results):
        print("many", [result.done and result.done.value for result in results])
match mailboxes_list.sync(client=client, search="typed", limit=2):
    case PaginatedMailboxShownList(items=found, next_=cursor):
        print("listed", [each.address for each in found], bool(cursor))
mailboxes_destroy.sync_detailed("typed@example.test", client=client)
match mailboxes_retrieve.sync("typed@example.test", client=client):
    case MailboxShown(closed_at=closed_at):
        print("closed", closed_at is not None)
"""

SAID = """\
would adds typed@example.test
made typed@example.test 2147483648
refused not-found
many ['created', 'created', 'created']
listed ['typed0@example.test', 'typed1@example.test'] True
closed True
"""


@pytest.mark.slow
@pytest.mark.skipif(GENERATOR is None, reason="openapi-python-client is not installed")
def test_a_generated_client_is_typed_and_works(web: Web, tmp_path: Path) -> None:
    generated = tmp_path / "client"
    options = ["--path", str(PROJECT / "docs" / "openapi.json"), "--output-path", str(generated)]
    subprocess.run([str(GENERATOR), "generate", *options], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "session.py").write_text(SESSION)
    [line] = Path(str(GENERATOR)).read_text(errors="replace").splitlines()[:1]  # its own Python, which has httpx
    python = line.removeprefix("#!")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "session.py"],
        cwd=tmp_path, env={"MYPYPATH": str(generated)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    said = subprocess.run(
        [python, "session.py", web.url, web.admin],
        cwd=tmp_path, env={"PYTHONPATH": str(generated)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.stdout == SAID, said.stderr
