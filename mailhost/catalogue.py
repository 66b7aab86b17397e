"""The catalogue of what people read: what belongs into it, and its files in `locale`.

Everything that is said in code and templates, what models call themselves, and what the admin's theme says, which
brings no languages along. Needs the tools of GNU gettext; whoever only runs Mailhost needs none of this.
"""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import unfold
from django.conf import settings
from django.utils.translation import template

from mailhost import words

TOOLS: Final = ("xgettext", "msgcat", "msgmerge", "msgattrib", "msgfmt")
OWN: Final = ("accounts", "lmtp", "mailhost", "mailstore", "pop3", "templates")
_HEADER: Final = (
    'msgid ""\nmsgstr ""\n"MIME-Version: 1.0\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    '"Content-Transfer-Encoding: 8bit\\n"\n\n'
)


class CannotBeWritten(Exception):
    """A tool refuses; the text is what it says."""


def path(language: str) -> Path:
    """The catalogue of a language."""
    return Path(settings.BASE_DIR) / "locale" / language / "LC_MESSAGES" / "django.po"


def write(language: str) -> None:
    """Bring a catalogue to what is said now, keep its translations, and compile it."""
    here = path(language)
    here.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place:
        wanted = Path(place) / "wanted.pot"
        wanted.write_text(extracted())
        if not here.exists():
            here.write_text(_HEADER)
        merged = _run("msgmerge", "--quiet", "--no-fuzzy-matching", "--no-wrap", str(here), str(wanted))
        kept = _run("msgattrib", "--no-obsolete", "--no-fuzzy", "--no-wrap", "-", given=merged)
    # When it was made stands in the history.
    here.write_text(re.sub(r'^"(?:POT-Creation|PO-Revision)-Date:.*\n', "", kept, flags=re.MULTILINE))
    _run("msgfmt", "--check", "--output-file", str(here.with_suffix(".mo")), str(here))


def extracted() -> str:
    """All that is to be translated, as a catalogue without translations."""
    root = Path(settings.BASE_DIR)
    own = [file for name in OWN for file in _sources(root / name)]
    theme = [file for file in _sources(Path(unfold.__path__[0])) if "contrib" not in file.parts]
    with TemporaryDirectory() as place:
        said = Path(place) / "said.pot"
        said.write_text(_of_files(own, Path(place) / "own"))
        of_models = Path(place) / "models.pot"
        of_models.write_text(_HEADER + "".join(_entry(word) for word in sorted(words.of_models())))
        borrowed = Path(place) / "borrowed.pot"
        borrowed.write_text(_of_files(theme, Path(place) / "theme"))
        return _run("msgcat", "--use-first", "--no-wrap", str(said), str(of_models), str(borrowed))


def _sources(directory: Path) -> list[Path]:
    found = [*directory.rglob("*.py"), *directory.rglob("*.html")]
    return sorted(file for file in found if "migrations" not in file.parts)


def _of_files(files: Iterable[Path], place: Path) -> str:
    """What xgettext finds. Templates are turned into what it can read first, as Django does."""
    names = []
    for number, file in enumerate(files):
        name = place / f"{number:05}.py"
        name.parent.mkdir(exist_ok=True)
        text = file.read_text()
        name.write_text(template.templatize(text) if file.suffix == ".html" else text)
        names.append(str(name))
    keywords = (
        "gettext_noop", "noop", "gettext_lazy", "_lazy", "ngettext_lazy:1,2", "pgettext:1c,2", "pgettext_lazy:1c,2",
        "npgettext:1c,2,3", "npgettext_lazy:1c,2,3",
    )  # fmt: skip
    options = ["--language=Python", "--from-code=UTF-8", "--no-location", "--no-wrap", "--output=-", "--files-from=-"]
    return _run("xgettext", *options, *(f"--keyword={word}" for word in keywords), given="\n".join(names))


def _entry(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'msgid "{escaped}"\nmsgstr ""\n\n'


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBeWritten(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout
