"""The languages that somebody can choose from."""

from django import template

from accounts import languages

register = template.Library()


@register.simple_tag
def language_names() -> tuple[tuple[str, str], ...]:
    """By code, what each calls itself: whoever reads only one finds it so."""
    return languages.NAMES
