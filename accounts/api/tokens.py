"""API tokens over the API."""

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import addresses, permissions, tokens
from accounts.api.problems import about
from accounts.api.serializers import Moment, Network, Strict, Text, Whole
from accounts.api.views import Resource, needs
from accounts.models import ApiToken, Domain, Mailbox, Reseller, Role, Tenant

SCOPES = [(scope, scope) for scope in permissions.SCOPES]


class TokenShown(serializers.ModelSerializer[ApiToken]):
    """A token, without its text."""

    tenant = serializers.SlugRelatedField[Tenant](slug_field="slug", read_only=True, allow_null=True)
    reseller = serializers.SlugRelatedField[Reseller](slug_field="slug", read_only=True, allow_null=True)
    domains = serializers.SlugRelatedField[Any](slug_field="name", read_only=True, many=True)
    mailbox = serializers.SlugRelatedField[Mailbox](slug_field="address", read_only=True, allow_null=True)
    example: ClassVar[dict[str, Any]] = {"domains": [], "mailbox": None}

    class Meta:
        model = ApiToken
        fields: ClassVar = [
            "id", "prefix", "name", "role", "tenant", "reseller", "domains", "mailbox", "scopes", "allowed_networks",
            "requests_per_minute", "expires_at", "revoked_at", "last_used_at", "last_used_address", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class TokenMade(TokenShown):
    """A token with its text, which is shown this once."""

    token = serializers.CharField(read_only=True, help_text="Shown this once.")

    class Meta(TokenShown.Meta):
        fields: ClassVar = [*TokenShown.Meta.fields, "token"]
        read_only_fields = fields


class TokenWanted(Strict):
    """What a token is to be."""

    name = Text(max_length=100, help_text="What uses it.")
    role = serializers.ChoiceField(choices=Role.choices)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=SCOPES),
        allow_empty=False,
        help_text="What is in messages it reads only where the tenant's policy lets whoever makes or rotates it, too.",
    )
    tenant = Text(max_length=63, required=False, allow_null=True, help_text="Whose it is.")
    reseller = Text(max_length=63, required=False, allow_null=True)
    domains = serializers.ListField(child=Text(max_length=253), required=False, help_text="Of a domain-admin.")
    mailbox = Text(max_length=320, required=False, allow_null=True, help_text="Of a member.")
    allowed_networks = serializers.ListField(
        child=Network(), required=False, max_length=100, help_text="Such as 192.0.2.0/24. Empty: anywhere."
    )
    expires_at = Moment(required=False, allow_null=True)
    requests_per_minute = Whole(required=False, min_value=1, max_value=1_000_000)


class Tokens(Resource):
    """API tokens. None is stronger than who makes it."""

    resource = "tokens"
    queryset = ApiToken.objects.select_related("tenant", "reseller", "mailbox").prefetch_related("domains")
    serializer_class = TokenShown
    lookup_field = "prefix"
    lookup_value_regex = "[a-z0-9]{8}"
    orderings = ("-id", "name", "expires_at", "last_used_at")
    volatile = frozenset({"last_used_at", "last_used_address"})

    @extend_schema(request=TokenWanted, responses={201: TokenMade})
    def create(self, request: Request) -> Any:
        """Make a token. Its text is shown this once."""
        wanted = self.body(TokenWanted)
        names = {name: wanted.pop(name, None) for name in ("tenant", "reseller", "domains", "mailbox")}
        made = tokens.make(by=self.principal, **self._named(names), **wanted)
        self.would("create", f"makes a token with the role {made.token.role}", tokens=1)
        return self._made(made, status=201)

    @extend_schema(request=None, responses={200: TokenMade})
    @needs("rotate")
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, prefix: str) -> Any:
        """Give a token a new text and prefix; the old ones end at once."""
        return self._made(tokens.rotate(self.find(lock=True), by=self.principal), status=200)

    @extend_schema(responses={204: OpenApiResponse(description="It is revoked.")})
    def destroy(self, request: Request, prefix: str) -> Response:
        """Revoke a token, at once and for ever."""
        token = self.find(lock=True)
        tokens.revoke(token)
        self.would("revoke", f"revokes the token {token}", tokens=1)
        return Response(status=204)

    def _made(self, made: tokens.Made, *, status: int) -> Any:
        where = f"/api/v1/tokens/{made.token.prefix}/"
        return self.answer(made.token, status=status, headers={"Location": where}, token=made.text)

    def _named(self, names: dict[str, Any]) -> dict[str, Any]:
        """What these names are, of what exists for whoever asks. Raises `Problem`."""
        found: dict[str, Any] = {}
        if names["tenant"]:
            found["tenant"] = self.named(Tenant, "tenant", slug=names["tenant"])
        if names["reseller"]:
            found["reseller"] = self.named(Reseller, "reseller", slug=names["reseller"])
        if names["mailbox"]:
            with about("mailbox"):
                address = addresses.address(names["mailbox"])
            found["mailbox"] = self.named(Mailbox, "mailbox", address=address, closed_at=None)
        if names["domains"]:
            with about("domains"):
                hosts = {addresses.domain(name) for name in names["domains"]}
            found["domains"] = [self.named(Domain, "domain", "domains", name=host) for host in sorted(hosts)]
        return found
