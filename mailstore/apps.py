"""The message store as an app of the project."""

from django.apps import AppConfig


class Mailstore(AppConfig):
    """The message store."""

    name = "mailstore"

    def ready(self) -> None:
        from accounts import app_passwords
        from mailstore import own_copies

        app_passwords.view_changed.connect(own_copies.settle)
