"""The admin of who has mail, and who may do what. Its forms write through `accounts.provisioning`."""

from django.contrib import admin
from django.contrib.auth.models import Group

from accounts.admin import (  # noqa: F401 - each registers its pages
    aliases,
    app_passwords,
    audit,
    domains,
    failed_logins,
    logins,
    mailboxes,
    plans,
    resellers,
    tenants,
    tokens,
    webhooks,
)

admin.site.unregister(Group)  # what somebody may do follows from his role
