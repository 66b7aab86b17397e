"""All that people read has its Vietnamese, in a catalogue that is compiled."""

import gettext
import re
import shutil
from pathlib import Path

import pytest

from mailhost import catalogue
from tests.catalogues import entries_of, read

VIETNAMESE = catalogue.path("vi")
PLACEHOLDERS = re.compile(r"%(?:\(\w+\))?[a-z]|\{\w*\}|</?\w+")

needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in catalogue.TOOLS), reason="the tools of GNU gettext are not installed"
)


@needs_tools
def test_everything_that_is_said_has_its_vietnamese() -> None:
    there = {(entry.context, entry.singular, entry.plural): entry.said for entry in entries_of(VIETNAMESE)}
    wanted = {(entry.context, entry.singular, entry.plural) for entry in read(catalogue.extracted())}
    assert len(wanted) > 1000
    assert [name for name in sorted(wanted) if not all(there.get(name, ("",)))] == [], (
        "run `make messages`, and translate"
    )
    assert sorted(there.keys() - wanted) == [], "run `make messages`"


def test_a_translation_has_the_placeholders_of_what_it_translates() -> None:
    for entry in entries_of(VIETNAMESE):
        assert not entry.fuzzy, entry.singular
        for said in entry.said:
            wanted = PLACEHOLDERS.findall(entry.plural or entry.singular)
            assert sorted(PLACEHOLDERS.findall(said)) == sorted(wanted), entry.singular


def test_the_compiled_catalogue_is_current() -> None:
    with VIETNAMESE.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for entry in entries_of(VIETNAMESE):
        name = f"{entry.context}\x04{entry.singular}" if entry.context else entry.singular
        said = compiled.ngettext(name, entry.plural, 2) if entry.plural else compiled.gettext(name)
        assert said == entry.said[0], f"{entry.singular}: run `make messages`"
    assert len(compiled._catalog) - 1 == len(entries_of(VIETNAMESE))  # type: ignore[attr-defined] # gettext has no other way to tell


@needs_tools
def test_writing_it_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "locale/vi/LC_MESSAGES/django.po"
    shutil.copytree(VIETNAMESE.parent, copy.parent)
    monkeypatch.setattr(catalogue, "path", lambda language: copy)
    catalogue.write("vi")
    assert copy.read_text() == VIETNAMESE.read_text()
    assert copy.with_suffix(".mo").read_bytes() == VIETNAMESE.with_suffix(".mo").read_bytes()
