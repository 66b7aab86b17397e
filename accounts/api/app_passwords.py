"""App passwords over the API: of one mailbox, whose owner makes them, too."""

from typing import Any, ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import addresses, app_passwords
from accounts.addresses import BadAddress
from accounts.api.named import GONE
from accounts.api.problems import Problem
from accounts.api.serializers import Moment, Network, Strict, Text, Truth
from accounts.api.views import Resource
from accounts.models import AppPassword, Mailbox


class AppPasswordShown(serializers.ModelSerializer[AppPassword]):
    """A password of one device or program, without its text."""

    class Meta:
        model = AppPassword
        fields: ClassVar = [
            "id", "name", "scopes", "allowed_networks", "own_copy", "expires_at", "revoked_at", "last_used_at",
            "last_used_address", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class AppPasswordMade(AppPasswordShown):
    """A password of one device or program, with its text, which is shown this once."""

    password = serializers.CharField(read_only=True, help_text="Shown this once.")

    class Meta(AppPasswordShown.Meta):
        fields: ClassVar = [*AppPasswordShown.Meta.fields, "password"]
        read_only_fields = fields


class AppPasswordWanted(Strict):
    """What an app password is to be."""

    name = Text(max_length=100, help_text="The device: Outlook office.")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=AppPassword.Scope.choices), required=False, allow_empty=False
    )
    allowed_networks = serializers.ListField(child=Network(), required=False, max_length=100)
    own_copy = Truth(
        required=False,
        help_text="What the device removes is gone for that device only; a message leaves the maildrop when all devices"
        " with an own copy have removed it. False: what it removes is gone for everybody.",
    )
    expires_at = Moment(required=False, allow_null=True)


class AppPasswordChange(AppPasswordWanted):
    """What of an app password is to change."""

    name = Text(max_length=100, required=False, help_text="The device: Outlook office.")
    example: ClassVar = {"name": "Outlook office"}


class AppPasswords(Resource):
    """The app passwords of a mailbox."""

    resource = "app-passwords"
    queryset = AppPassword.objects.all()
    serializer_class = AppPasswordShown
    lookup_field = "id"
    lookup_value_regex = "[0-9]{1,18}"
    orderings = ("-id", "last_used_at")
    volatile = frozenset({"last_used_at", "last_used_address"})

    def rows(self) -> Any:
        return super().rows().filter(mailbox=self._mailbox())

    @extend_schema(request=AppPasswordWanted, responses={201: AppPasswordMade})
    def create(self, request: Request, address: str) -> HttpResponseBase:
        """Make one. Its text is shown this once."""
        mailbox = self._mailbox()
        made, text = app_passwords.create(mailbox, **self.body(AppPasswordWanted))
        self.would("create", f"makes an app password of {mailbox}", app_passwords=1)
        where = f"/api/v1/mailboxes/{mailbox}/app-passwords/{made.pk}/"
        return self.answer(made, status=201, headers={"Location": where}, password=text)

    @extend_schema(request=AppPasswordChange, responses={200: AppPasswordShown})
    def partial_update(self, request: Request, address: str, id: str) -> HttpResponseBase:
        """Change what the body names. Sessions that could not begin with it now end.

        An own copy begins with all that is in the maildrop. When it ends, what all others with one have removed leaves
        the maildrop.
        """
        row = self.find(lock=True)
        app_passwords.change(row, **self.body(AppPasswordChange))
        return self.answer(row)

    @extend_schema(responses={204: GONE})
    def destroy(self, request: Request, address: str, id: str) -> HttpResponseBase:
        """Revoke it; sessions that began with it end."""
        row = self.find(lock=True)
        self.would("revoke", f"revokes the app password {row}", app_passwords=1)
        app_passwords.revoke(row)
        return Response(status=204)

    def list(self, request: Request, address: str) -> HttpResponseBase:  # type: ignore[override]
        """Those of the mailbox, a page at a time."""
        return super().list(request)

    def _mailbox(self) -> Mailbox:
        try:
            address = addresses.address(self.kwargs["address"])
        except BadAddress:
            raise Problem("not-found") from None
        mailbox: Mailbox | None = (
            Mailbox.objects.visible_to(self.principal).filter(address=address, closed_at=None).first()
        )
        if mailbox is None:
            raise Problem("not-found")
        return mailbox
