"""The addresses of the API of who has mail."""

from rest_framework.routers import SimpleRouter

from accounts.api.audit import AuditEvents
from accounts.api.tokens import Tokens

router = SimpleRouter()
router.register("audit-events", AuditEvents, basename="audit-event")
router.register("tokens", Tokens, basename="token")

urlpatterns = router.urls
