"""The addresses of the API of who has mail."""

from rest_framework.routers import SimpleRouter

from accounts.api.aliases import Aliases
from accounts.api.app_passwords import AppPasswords
from accounts.api.audit import AuditEvents
from accounts.api.domains import Domains
from accounts.api.mailboxes import Mailboxes
from accounts.api.plans import Plans
from accounts.api.tenants import Resellers, Tenants
from accounts.api.tokens import Tokens
from accounts.api.webhooks import WebhookDeliveries, Webhooks

router = SimpleRouter()
router.register("aliases", Aliases, basename="alias")
router.register("audit-events", AuditEvents, basename="audit-event")
router.register("domains", Domains, basename="domain")
router.register("mailboxes", Mailboxes, basename="mailbox")
router.register("mailboxes/(?P<address>[^/]+)/app-passwords", AppPasswords, basename="app-password")
router.register("plans", Plans, basename="plan")
router.register("resellers", Resellers, basename="reseller")
router.register("tenants", Tenants, basename="tenant")
router.register("tokens", Tokens, basename="token")
router.register("webhooks", Webhooks, basename="webhook")
router.register("webhooks/(?P<webhook>[0-9]{1,18})/deliveries", WebhookDeliveries, basename="webhook-delivery")

urlpatterns = router.urls
