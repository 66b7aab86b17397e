"""The words that are not written as messages of ours: what models call themselves, and what libraries say.

No model has to say that its names are to be translated: all of them are. `mailhost.catalogue` puts these words into the
catalogue with the others.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.apps import apps
from django.contrib import admin
from django.db.models import Choices, Model
from django.utils.translation import gettext_lazy, gettext_noop, ngettext_lazy

OWN: Final = ("accounts", "mailstore")
"""Applications with models of ours."""


def translate_models() -> None:
    """From now on models name themselves, their fields and choices in the language of whoever reads."""
    for holder, name, word in _words(_models()):
        setattr(holder, name, gettext_lazy(str(word)))
    for name in OWN:
        apps.get_app_config(name).verbose_name = gettext_lazy(str(apps.get_app_config(name).verbose_name))
    for model in _models():
        for field in model._meta.local_fields:
            if field.choices:
                field.choices = [(value, gettext_lazy(str(label))) for value, label in field.flatchoices]


def of_models() -> set[str]:
    """What models that have a page in the admin call themselves, in English."""
    shown = [model for model in _models() if model in admin.site._registry]
    labels = {
        str(label) for model in shown for field in model._meta.local_fields for _, label in field.flatchoices or ()
    }
    applications = {str(apps.get_app_config(name).verbose_name) for name in OWN}
    return {str(word) for _, _, word in _words(shown)} | labels | applications


def _models() -> Iterator[type[Model]]:
    for name in OWN:
        yield from apps.get_app_config(name).get_models()


def _words(models: Iterable[type[Model]]) -> Iterator[tuple[Any, str, Any]]:
    """Each word that is not empty, with what has it and under which name."""
    for model in models:
        names: list[tuple[Any, str]] = [(model._meta, "verbose_name"), (model._meta, "verbose_name_plural")]
        for field in (*model._meta.local_fields, *model._meta.local_many_to_many):
            names += [(field, "verbose_name"), (field, "help_text")]
        for space in (vars(model), vars(sys.modules[model.__module__])):
            kinds = [kind for kind in space.values() if isinstance(kind, type) and issubclass(kind, Choices)]
            names += [(member, "_label_") for kind in kinds for member in kind]
        for holder, name in names:
            if word := getattr(holder, name):
                yield holder, name, word


# Of Django, what has no Vietnamese there, and is said here.
_OF_DJANGO: Final = (
    gettext_noop("CSRF verification failed. Request aborted."),
    gettext_noop("Date out of range"),
    gettext_noop("Enter a valid JSON."),
    gettext_noop("Enter a valid UUID."),
    gettext_noop("Enter a valid duration."),
    gettext_noop("Enter a valid “slug” consisting of letters, numbers, underscores or hyphens."),
    gettext_noop("Forbidden"),
    gettext_noop("More information is available with DEBUG=True."),
    gettext_noop("Null characters are not allowed."),
    gettext_noop("The number of days must be between {min_days} and {max_days}."),
    gettext_noop("This is not a valid IPv6 address."),
    gettext_noop('%(name)s with ID "%(key)s" doesn\'t exist. Perhaps it was deleted?'),
    gettext_noop("Breadcrumbs"),
    gettext_noop("Error:"),
    gettext_noop("Filter navigation items"),
    gettext_noop("Forgotten your login credentials?"),
    gettext_noop("Hide counts"),
    gettext_noop("Hold down “Control”, or “Command” on a Mac, to select more than one."),
    gettext_noop("Select all objects on this page for an action"),
    gettext_noop("Select this object for an action - {}"),
    gettext_noop("Show counts"),
    gettext_noop("Sidebar"),
    gettext_noop("Skip to main content"),
    gettext_noop("The {name} “{obj}” was added successfully."),
    gettext_noop("The {name} “{obj}” was added successfully. You may add another {name} below."),
    gettext_noop("The {name} “{obj}” was changed successfully."),
    gettext_noop("The {name} “{obj}” was changed successfully. You may add another {name} below."),
    gettext_noop("The {name} “{obj}” was changed successfully. You may edit it again below."),
    gettext_noop("Toggle navigation"),
    gettext_noop("Toggle theme (current theme: auto)"),
    gettext_noop("Toggle theme (current theme: dark)"),
    gettext_noop("Toggle theme (current theme: light)"),
    gettext_noop("View selected %(model)s"),
    gettext_noop("You don’t have permission to view or edit anything."),
    ngettext_lazy("%(num)d year", "%(num)d years", "num"),
    ngettext_lazy("%(num)d month", "%(num)d months", "num"),
    ngettext_lazy("%(num)d week", "%(num)d weeks", "num"),
    ngettext_lazy("%(num)d day", "%(num)d days", "num"),
    ngettext_lazy("%(num)d hour", "%(num)d hours", "num"),
    ngettext_lazy("%(num)d minute", "%(num)d minutes", "num"),
    ngettext_lazy(
        "This password is too short. It must contain at least %d character.",
        "This password is too short. It must contain at least %d characters.",
        "min_length",
    ),
)
