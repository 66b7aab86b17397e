"""The documents say what is so: their settings, commands, links and examples."""

import base64
import json
import re
import time
from http.client import HTTPMessage, parse_headers
from io import BytesIO
from pathlib import Path

import pytest
from django.core.management import get_commands

from accounts.endpoint import signature
from accounts.events import KINDS

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
README = (PROJECT / "README.md").read_text()
GUIDE = (PROJECT / "docs/api.md").read_text()


def test_the_readme_names_all_settings_and_no_others() -> None:
    source = (PROJECT / "mailhost/settings.py").read_text()
    read = set(re.findall(r'"(MAILHOST_\w+|DATABASE_URL|REDIS_URL)"', source))
    rows = re.findall(r"^\| (`[A-Z].*?) \|", section("Settings"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == read


def test_the_readme_names_all_commands_and_no_others() -> None:
    apps = ("accounts", "mailstore", "lmtp", "pop3", "mailhost")
    ours = {name for name, app in get_commands().items() if app in apps}
    rows = re.findall(r"^\| (`[a-z].*?) \|", section("Commands").partition("manage.py …")[2], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9]+)", row)}
    djangos = {"createsuperuser", "changepassword"}
    assert named - djangos == ours - djangos


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", document.read_text()):
        there = document.parent / target if target else document
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, anchor


def test_the_integrators_guide_names_no_address_that_there_is_not() -> None:
    described = json.loads((PROJECT / "docs/openapi.json").read_text())["paths"]
    there = {
        (method.upper(), re.sub(r"{\w+}", "*", path)) for path, operations in described.items() for method in operations
    }
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)", GUIDE)
    assert len(named) > 15
    assert {(method, "/api/v1" + re.sub(r"\b[A-Z]+\b", "*", path)) for method, path in named} <= there


def test_the_typed_client_is_made_of_what_the_description_has() -> None:
    described = json.loads((PROJECT / "docs/openapi.json").read_text())
    operations = {each.get("operationId") for path in described["paths"].values() for each in path.values()}
    [imports] = re.findall(r"```python\n(from mailhost_client import.*?)\n\n", GUIDE, re.DOTALL)
    assert set(re.findall(r"mailhost_client\.api\.\w+ import (\w+)", imports)) <= operations
    [models] = re.findall(r"mailhost_client\.models import (.*)", imports)
    assert set(models.split(", ")) <= set(described["components"]["schemas"])


def test_the_tests_that_conformance_names_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (PROJECT / "docs/conformance.md").read_text()))
    sources = [path.read_text() for path in (PROJECT / "tests").rglob("*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)", source)}
    assert named <= there


def test_the_integrators_guide_names_all_events() -> None:
    table = GUIDE.partition("| events |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+\.\w+)`", table)) == set(KINDS)


def test_the_example_of_receiving_webhooks_tells_ours_from_others() -> None:
    [source] = re.findall(r"```python\n(import base64.*?)```", GUIDE, re.DOTALL)
    example: dict[str, object] = {}
    exec(source, example)
    is_genuine = example["is_genuine"]
    assert callable(is_genuine)
    secret, body, now = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"type":"mailbox.created"}', int(time.time())

    def sent(*keys: bytes, at: int = now) -> dict[str, str]:
        signed = signature(keys, event_id="evt_1", timestamp=at, body=body)
        return {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(at), "Webhook-Signature": signed}

    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert is_genuine(sent(key), body, secret)
    assert is_genuine(sent(b"a new one", key), body, secret)
    assert not is_genuine(sent(b"another's"), body, secret)
    assert not is_genuine(sent(key), body + b" ", secret)
    assert not is_genuine(sent(key, at=now - 3600), body, secret)
    assert not is_genuine(sent(key) | {"Webhook-Signature": "v1,\xe9"}, body, secret)
    assert not is_genuine({}, body, secret)
    # As http.server has them: a header that is missing is None, and no KeyError.
    assert is_genuine(parsed(sent(key)), body, secret)
    assert not is_genuine(parsed({}), body, secret)


def parsed(headers: dict[str, str]) -> HTTPMessage:
    """The headers of a request as the standard library's server hands them out."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return parse_headers(BytesIO("".join([*lines, "\r\n"]).encode("latin-1")))


def section(title: str) -> str:
    """What the README says under a title."""
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]
