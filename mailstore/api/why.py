"""Why an address cannot sign in or gets no mail, over the API."""

from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from accounts.addresses import BadAddress
from accounts.api.problems import FieldError, Problem
from accounts.api.views import Resource
from accounts.models import Mailbox
from mailstore import configured, why


class FindingShown(serializers.Serializer[Any]):
    """One reason, or one thing that speaks against it."""

    code = serializers.CharField(help_text="Stable, such as `full`; others may come.")
    about = serializers.ChoiceField(choices=[each.value for each in why.About])
    severity = serializers.ChoiceField(
        choices=[each.value for each in why.Severity],
        help_text="wrong: because of this nobody signs in, or no mail is taken; warning: perhaps because of this.",
    )
    text = serializers.CharField(help_text="For people.")
    facts = serializers.DictField(help_text="What the text says; other names may come.")
    actions = serializers.ListField(child=serializers.CharField(), help_text="What helps, that you may do.")


class WhyShown(serializers.Serializer[Any]):
    """What is found out about an address."""

    address = serializers.CharField(help_text="In normal form.")
    findings = FindingShown(many=True)


_EXAMPLE = {
    "address": "an@example.test",
    "findings": [
        {
            "code": "pop3-off",
            "about": "login",
            "severity": "wrong",
            "text": "POP3 is off for an@example.test.",
            "facts": {},
            "actions": ["enable-pop3"],
        }
    ],
}


class Why(Resource):
    """What stored facts say of one address."""

    resource = "why"
    queryset = Mailbox.objects.all()
    serializer_class = WhyShown
    pagination_class = None  # type: ignore[assignment] # it is one thing
    extra_parameters = frozenset({"address"})

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "address", str, required=True, description="Any address, in any spelling; also one that nobody has."
            )
        ],
        responses={200: WhyShown},
        operation_id="why_retrieve",
        examples=[OpenApiExample("found", value=_EXAMPLE, response_only=True, status_codes=["200"])],
    )
    def retrieve(self, request: Request, **names: str) -> HttpResponseBase:
        """Why nobody can sign in with an address, or why its mail is refused; the gravest reason first.

        An address that is not yours to see is answered like one that is hosted nowhere.
        """
        config = configured.looking()
        try:
            address = why.typed(request.query_params.get("address", ""), default_domain=config.default_domain)
        except BadAddress:
            raise Problem("bad-parameter", errors=[FieldError("address", "bad-address", "It is no address.")]) from None
        found = [
            {
                "code": one.code, "about": one.about.value, "severity": one.severity.value, "text": one.text,
                "facts": one.facts, "actions": [action.name for action in one.actions if action.name != why.LOOK],
            }
            for one in why.findings(address, self.principal, config)
        ]  # fmt: skip
        return self.answer({"address": address, "findings": found})
