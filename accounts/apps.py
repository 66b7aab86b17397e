"""The app: what follows whenever the schema has changed, and whenever somebody has signed in or out."""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models.signals import post_migrate


class AccountsConfig(AppConfig):
    """Who has mail."""

    name = "accounts"

    def ready(self) -> None:
        from accounts.backends import signed_in, signed_out

        # Instead of Django's own, which would look for the row outside of any scope.
        user_logged_in.disconnect(dispatch_uid="update_last_login")
        user_logged_in.connect(signed_in, dispatch_uid="accounts.last_login")
        user_logged_out.connect(signed_out, dispatch_uid="accounts.signed_out")
        post_migrate.connect(_secure, dispatch_uid="accounts.database_roles")


def _secure(app_config: AppConfig, plan: Any = (), **_: Any) -> None:
    from django.apps import apps

    from accounts import database_roles

    # Once, after the last of those that the signal comes for; not while migrations are taken back one by one.
    with_models = [config for config in apps.get_app_configs() if config.models_module]
    if app_config is with_models[-1] and not any(backwards for _, backwards in plan):
        database_roles.apply()
