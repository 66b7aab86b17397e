"""Every page in a language that only marks what is translated: what is not marked was written past the catalogue."""

import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import django
import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client

from accounts.models import ApiToken
from mailhost import catalogue
from tests import pages_of
from tests.accounts.test_admin import rows  # noqa: F401 - a fixture
from tests.catalogues import compiled, entries_of, key
from tests.fixtures import Customer

CODE = "af"  # a language that Django knows, and we do not speak
MOST_PAGES = 250
HEADER = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n != 1;\n"

MARKED = re.compile(r"⟦[^⟦⟧]*⟧")
SKIPPED = {"script", "style", "template", "code", "pre", "textarea", "title", "optgroup"}
SHOWN = ("aria-label", "placeholder", "title", "alt")
BLOCKS = {"p", "div", "li", "td", "th", "dd", "dt", "h1", "h2", "h3", "label", "section", "form", "summary", "option"}
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}

# What is called the same everywhere, and what was put into the rows.
NAMES = re.compile(
    r"Mailhost|English|Tiếng Việt|POP3S?|IMAP|LMTP|SMTP|TLS|STARTTLS|SSL/TLS|API|CSV|DNS|TXT|UTC|UTF-8|URL|ID|SHA-256"
    r"|mbox|Maildir|Outlook|Thunderbird|Apple Mail|Gmail|fetchmail|getmail|mpop|POST|GET"
    r"|esc|Ctrl|purge|celery|tls|pop3|_mailhost|acme|globex|example|seller|plan|created|Subject|Return-Path|phone|About|someone|here|sales|host|of|an|boss|operator|localhost"
)
DATA = re.compile(
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|https?://\S+|\S+@\S*|\b[\w-]+(?:\.[\w-]+)+\b|\b[a-z]+(?:[-_][a-z]+)*:[a-z]+\b|\b[0-9A-Fa-f:.]*\d[0-9A-Fa-f:./]*[BKMGT]?\b"
    r"|mailhost-verification=\w+|\b[A-Z][A-Za-z]+/[A-Za-z_/]+"
)


class Reader(HTMLParser):
    """What somebody reads on a page: its texts, and what is told of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self._depth = 0  # of marks: a sentence may have elements in it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        icon = "material-symbols" in values.get("class", "")
        if tag in BLOCKS:
            self._depth = 0
        if tag not in VOID:
            self._open.append((tag, tag in SKIPPED or icon))
        if tag == "a":
            self.links.append(values.get("href", ""))
        if not any(skipped for _, skipped in self._open):
            self.texts += [values[name] for name in SHOWN if name in values]
            if tag == "input" and values.get("type") in ("submit", "button"):
                self.texts.append(values.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            if self._open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        if not any(skipped for _, skipped in self._open):
            left = ""
            for letter in data:
                self._depth = max(0, self._depth + {"⟦": 1, "⟧": -1}.get(letter, 0))
                left += letter if not self._depth else " "
            self.texts.append(" ".join(left.split()))


def unmarked(text: str, data: Iterable[str] = ()) -> str:
    """What of a text is neither translated nor data."""
    while (left := MARKED.sub(" ", text)) != text:
        text = left
    for known in data:
        text = text.replace(known, "")
    left = NAMES.sub(" ", DATA.sub(" ", text.replace("⟦", " ").replace("⟧", " ")))
    return text if re.search(r"[^\W\d_]{2}", left) else ""


@pytest.fixture
def marking(tmp_path: Path, settings: Any) -> None:
    """All that has its Vietnamese, and all that Django says in any language, in a language that marks it."""
    said = {key(entry): (entry.singular, entry.plural) for entry in entries_of(catalogue.path("vi"))}
    for file in Path(django.__file__).parent.rglob("locale/*/LC_MESSAGES/django.po"):
        if file.parts[-3] in ("de", "fr", "ru", "vi"):
            said |= {key(entry): (entry.singular, entry.plural) for entry in entries_of(file)}
    entries = {
        name: "\0".join(f"⟦{text}⟧" for text in ((singular, plural) if plural else (singular,))).encode()
        for name, (singular, plural) in said.items()
        if b"_FORMAT" not in name
    }
    place = tmp_path / CODE / "LC_MESSAGES"
    place.mkdir(parents=True)
    (place / "django.mo").write_bytes(compiled(HEADER, entries))
    settings.LOCALE_PATHS = [tmp_path]
    settings.LANGUAGES = [("en", "English"), (CODE, "Afrikaans")]
    settings.FORMAT_MODULE_PATH = ["mailhost.formats"]


def told(found: dict[str, set[str]]) -> str:
    """Each text, and where it stands."""
    texts: dict[str, list[str]] = {}
    for path, left in found.items():
        for text in left:
            texts.setdefault(text, []).append(path)
    return "\n".join(f"{text}   {' '.join(sorted(pages)[:3])}" for text, pages in sorted(texts.items()))


def walk(client: Client, *starts: str, below: str, data: Iterable[str] = ()) -> dict[str, set[str]]:
    """By page, what is not translated on it; all pages that links lead to are looked at, filtered lists once."""
    waiting, seen, found = list(starts), set(starts), {}
    while waiting and len(seen) < MOST_PAGES:
        path = waiting.pop(0)
        response = client.get(path, headers={"accept-language": CODE})
        if response.status_code != 200 or "html" not in response.headers["Content-Type"]:
            continue
        reader = Reader()
        reader.feed(response.content.decode())
        if left := {text for text in reader.texts if unmarked(text, data)}:
            found[path] = left
        for link in reader.links:
            there = urljoin(path, link).partition("?")[0].partition("#")[0]
            if there.startswith(below) and there not in seen and not re.search(r"/(?:logout|export)/", there):
                seen.add(there)
                waiting.append(there)
    return found


@pytest.mark.parametrize("who", ["operator", "boss"])
def test_the_admin_says_nothing_past_the_catalogue(
    who: str,
    request: pytest.FixtureRequest,
    marking: None,
    rows: dict[type[Model], dict[str, Model]],  # noqa: F811
) -> None:
    client = request.getfixturevalue(who)
    starts = ["/admin/", "/admin/login/"]
    for model in admin.site._registry:
        listed = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        starts += [listed, f"{listed}add/"]
        if model in rows:
            starts.append(f"{listed}{rows[model]['acme'].pk}/change/")
    random = list(ApiToken.objects.values_list("prefix", flat=True))
    found = walk(client, *starts, below="/admin/", data=random)
    assert not found, told(found)


def test_the_owner_s_pages_say_nothing_past_the_catalogue(marking: None, acme: Customer) -> None:
    client = pages_of.signed_in(acme.mailbox)
    found = walk(client, "/me/", below="/me/") | walk(
        Client(), "/me/sign-in/", "/me/profile/x/", "/nothing/", below="/-"
    )
    assert not found, told(found)
