"""Filters that are as strict as bodies are."""

from datetime import UTC, datetime

import django_filters
from django import forms
from django.core.exceptions import ValidationError

from accounts.api import moments


class _TrueOrFalse(forms.NullBooleanField):
    def to_python(self, value: object) -> bool | None:  # type: ignore[override] # as Django's own does
        if value in (None, ""):
            return None
        if value not in ("true", "false"):
            raise ValidationError("It is true or false.")
        return value == "true"


class _Moment(django_filters.fields.IsoDateTimeField):  # type: ignore[misc] # django-filter has no types
    def to_python(self, value: object) -> datetime | None:
        if value not in (None, "") and not moments.is_one(value):
            raise ValidationError(moments.ADVICE)
        found: datetime | None = super().to_python(value)
        try:
            return found and found.astimezone(UTC)  # PostgreSQL knows no zones a day away
        except OverflowError:
            raise ValidationError(moments.ADVICE) from None


class At(django_filters.IsoDateTimeFilter):  # type: ignore[misc] # django-filter has no types
    """A time with its zone."""

    field_class = _Moment


class Whole(django_filters.NumberFilter):  # type: ignore[misc] # django-filter has no types
    """A whole number."""

    field_class = forms.IntegerField


class Flag(django_filters.BooleanFilter):  # type: ignore[misc] # django-filter has no types
    """`true` or `false`."""

    field_class = _TrueOrFalse

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{"widget": forms.TextInput, **options})
