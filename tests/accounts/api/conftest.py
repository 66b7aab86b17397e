"""Two tenants, of which one is a reseller's; and a program for each role in the first."""

from collections.abc import Callable
from typing import Any

import pytest

from accounts.models import Reseller, Role, Tenant
from mailhost import environment
from tests.accounts.api.programs import Program, token_text
from tests.fixtures import Customer


@pytest.fixture(autouse=True)
def forwarding(settings: Any) -> None:
    """The host has an MTA for what goes outside."""
    settings.MAILHOST_FORWARD_SMTP = environment.address("127.0.0.1:25")


@pytest.fixture
def reseller(acme: Customer) -> Reseller:
    """The reseller that owns acme."""
    made: Reseller = Reseller.objects.create(slug="reseller", name="A reseller")
    Tenant.objects.filter(pk=acme.tenant.pk).update(reseller=made)
    acme.tenant.refresh_from_db()
    return made


@pytest.fixture
def other_reseller(globex: Customer) -> Reseller:
    """The reseller that owns globex."""
    made: Reseller = Reseller.objects.create(slug="other-reseller", name="Another reseller")
    Tenant.objects.filter(pk=globex.tenant.pk).update(reseller=made)
    globex.tenant.refresh_from_db()
    return made


@pytest.fixture
def program(acme: Customer, reseller: Reseller) -> Callable[[str], Program]:
    """Makes a program with that role for acme: its reseller's, its own, its domain's, its mailbox's."""

    def make(role: str) -> Program:
        match role:
            case Role.OPERATOR:
                return Program(token_text(role))
            case Role.RESELLER:
                return Program(token_text(role, reseller=reseller))
            case Role.DOMAIN_ADMIN:
                return Program(token_text(role, tenant=acme.tenant, domain=acme.domain))
            case Role.MEMBER:
                return Program(token_text(role, mailbox=acme.mailbox))
        return Program(token_text(role, tenant=acme.tenant))

    return make


@pytest.fixture
def host(db: None) -> Program:
    """An operator's program."""
    return Program(token_text("operator"))


@pytest.fixture
def admin(acme: Customer) -> Program:
    """A program of acme's administrator."""
    return Program(token_text("tenant-admin", tenant=acme.tenant))


@pytest.fixture
def foreign_admin(globex: Customer) -> Program:
    """A program of globex's administrator."""
    return Program(token_text("tenant-admin", tenant=globex.tenant))
