"""Programs that ask the API: with a token, over Django's test client, in the web's role of the database."""

import ipaddress
import json
import secrets
from typing import Any

from accounts import permissions, tokens
from accounts.models import Domain, Mailbox, Reseller, Role, Tenant
from accounts.principals import SYSTEM
from tests.fixtures import WebClient


class Program(WebClient):
    """A program; each comes from a network of its own."""

    def __init__(self, text: str = "", **defaults: Any) -> None:
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        address = str(ipaddress.ip_address(0xFD << 120 | secrets.randbits(40) << 80 | 1))
        super().__init__(headers=headers, **{"REMOTE_ADDR": address, **defaults})

    def send(self, method: str, path: str, body: Any = None, *, query: str = "", **headers: str) -> Any:
        """The answer to a request. Headers are named with underscores."""
        return self.generic(
            method,
            f"/api/v1{path}{'?' if query else ''}{query}",
            "" if body is None else json.dumps(body),
            content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def read(self, path: str, query: str = "") -> Any:
        """What is read there."""
        answer = self.send("GET", path, query=query)
        assert answer.status_code == 200, answer.content
        return answer.json()


def token_text(
    role: str,
    *,
    scopes: Any = None,
    tenant: Tenant | None = None,
    reseller: Reseller | None = None,
    domain: Domain | None = None,
    mailbox: Mailbox | None = None,
    **options: Any,
) -> str:
    """The text of a new token, with all scopes of its role unless some are given."""
    made = tokens.make(
        by=SYSTEM,
        name=f"the {role}'s",
        role=role,
        scopes=permissions.scopes_of(role) if scopes is None else scopes,
        tenant=tenant,
        reseller=reseller,
        domains=[domain] if domain else [],
        mailbox=mailbox,
        **options,
    )
    return made.text


def refusal(answer: Any, status: int) -> dict[str, Any]:
    """The problem document of an answer that has this status."""
    assert answer.status_code == status, (answer.status_code, answer.content)
    assert answer["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    return problem


ROLES = [role.value for role in Role]
