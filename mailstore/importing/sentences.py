"""What is said while nobody is there to read it: kept, so that it is said in the language of whoever reads it later."""

from typing import Any, NamedTuple, Self

from django.utils.translation import gettext


class Sentence(NamedTuple):
    """A sentence without its full stop. In JSON it is a list of both, of which `kept` makes it again."""

    text: str
    """In English, as catalogues know it (marked with `gettext_noop`), with the places of its values."""
    values: dict[str, Any]
    """Numbers, names, what others have said, or further sentences."""

    def __str__(self) -> str:
        said = gettext(self.text)
        return said % self.values if self.values else said

    @classmethod
    def named(cls, name: str) -> Self:
        """What is called the same in every language."""
        return cls("%(name)s", {"name": name})

    @classmethod
    def kept(cls, kept: list[Any]) -> Self:
        """The sentence that was kept."""
        text, values = kept
        return cls(text, {name: cls.kept(one) if isinstance(one, list) else one for name, one in values.items()})
