"""The addresses of the API of the mail."""

from django.urls import re_path
from rest_framework.routers import SimpleRouter

from mailstore.api.delivering import MailboxDeliveries
from mailstore.api.domains import DomainMove
from mailstore.api.imports import Imports, MailboxImports
from mailstore.api.mailboxes import Erasure, Export
from mailstore.api.messages import Messages
from mailstore.api.sessions import MailboxSessions, Sessions
from mailstore.api.usage import DomainsUsage, Everything, MailboxUsage, ResellersUsage, TenantsUsage
from mailstore.api.why import Why

_MAILBOX = "mailboxes/(?P<address>[^/]+)"

router = SimpleRouter()
router.register("messages", Messages, basename="message")
router.register(f"{_MAILBOX}/messages", MailboxDeliveries, basename="mailbox-message")
router.register("sessions", Sessions, basename="session")
router.register(f"{_MAILBOX}/sessions", MailboxSessions, basename="mailbox-session")
router.register("imports", Imports, basename="import")
router.register(f"{_MAILBOX}/imports", MailboxImports, basename="mailbox-import")
router.register("usage/resellers", ResellersUsage, basename="usage-reseller")
router.register("usage/tenants", TenantsUsage, basename="usage-tenant")
router.register("usage/domains", DomainsUsage, basename="usage-domain")

urlpatterns = [
    *router.urls,
    re_path("^usage/$", Everything.as_view({"get": "retrieve"})),
    re_path("^why/$", Why.as_view({"get": "retrieve"})),
    re_path("^domains/(?P<name>[^/]+)/move/$", DomainMove.as_view({"post": "create"})),
    re_path(f"^{_MAILBOX}/usage/$", MailboxUsage.as_view({"get": "retrieve"})),
    re_path(f"^{_MAILBOX}/export/$", Export.as_view({"get": "retrieve"})),
    re_path(f"^{_MAILBOX}/erase/$", Erasure.as_view({"post": "create"})),
]
