"""In which language and time zone somebody reads, and what else he can choose."""

from django import template
from django.utils import timezone

from accounts import languages

register = template.Library()


@register.simple_tag
def language_names() -> tuple[tuple[str, str], ...]:
    """By code, what each calls itself: whoever reads only one finds it so."""
    return languages.NAMES


@register.simple_tag
def zone_name() -> str:
    """The zone of the times on this page."""
    return languages.named(timezone.get_current_timezone())


@register.filter
def grouped(number: int) -> str:
    """A number with its digits in groups, as the language writes it."""
    return languages.number(number)
