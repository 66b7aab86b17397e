"""Two tenants, for tests that want to see that neither exists for the other."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts import provisioning
from accounts.models import Domain, Mailbox, Tenant, User

PASSWORD = "hutech123"


@contextmanager
def as_web() -> Iterator[None]:
    """Within, the database takes us for the web's process: outside of a scope it sees nothing."""
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE mailhost_web")
        try:
            yield
        finally:
            if not connection.needs_rollback:
                cursor.execute("RESET ROLE")


class WebClient(Client):
    """A browser, or a program, that talks to the web's process."""

    def request(self, **request: Any) -> Any:
        with as_web():
            return super().request(**request)


@dataclass(frozen=True)
class Customer:
    """A tenant with one domain, and in it one mailbox without quota that has `PASSWORD`."""

    tenant: Tenant
    domain: Domain
    mailbox: Mailbox

    def add(self, local_part: str, *, quota_octets: int | None = None) -> Mailbox:
        """One more mailbox, in which nobody can sign in."""
        mailbox, _ = provisioning.add_mailbox(f"{local_part}@{self.domain}", password=None, quota_octets=quota_octets)
        return mailbox


def _customer(slug: str, domain: str) -> Customer:
    tenant, _ = provisioning.add_tenant(slug)
    hosted, _ = provisioning.add_domain(domain, tenant=tenant)
    mailbox, _ = provisioning.add_mailbox(f"an@{domain}", password=PASSWORD, quota_octets=None)
    return Customer(tenant, hosted, mailbox)


@pytest.fixture
def acme(db: None) -> Customer:
    """The tenant `acme` with an@acme.test."""
    return _customer("acme", "acme.test")


@pytest.fixture
def globex(db: None) -> Customer:
    """The tenant `globex` with an@globex.test."""
    return _customer("globex", "globex.test")


@pytest.fixture
def operator(db: None) -> Client:
    """A browser in which an operator has signed in."""
    return signed_in(provisioning.add_staff("operator@localhost", password=None, tenant=None))


@pytest.fixture
def boss(acme: Customer) -> Client:
    """A browser in which boss@acme.test has signed in: the admin of `acme`."""
    return signed_in(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))


def stranger() -> IPv4Address:
    """An address on the Internet from which nobody has failed to sign in before."""
    return IPv4Address(random.randrange(11 << 24, 100 << 24))


def signed_in(user: User) -> Client:
    """A browser in which somebody has signed in."""
    client = WebClient()
    client.force_login(user)
    return client
