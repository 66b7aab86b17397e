"""The admin's page about a domain's DNS, and the check of whose it is: neither holds a transaction meanwhile."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse

from accounts import provisioning, verification
from accounts.models import Domain, Role
from accounts.zone import asking
from accounts.zone.records import Hosted, this_host
from tests.accounts.nameserver import NameServer
from tests.accounts.zone.conftest import all_right
from tests.fixtures import Customer, signed_in


@pytest.fixture
def published(acme: Customer, globex: Customer, server: NameServer) -> Iterator[NameServer]:
    """A name server in which everything of acme's domain is right."""
    Domain.objects.update(state="pending")
    acme.domain.refresh_from_db()
    where = {
        "MAILHOST_DNS_SERVERS": [("127.0.0.1", server.port)],
        "MAILHOST_PUBLIC_NAME": "mail.host.example",
        "MAILHOST_SPF_INCLUDE": "_spf.host.example",
    }
    with override_settings(**where):
        server.records = all_right(Hosted.of(acme.domain), this_host())
        yield server


def dns(domain: Domain, query: str = "") -> str:
    return reverse("admin:accounts_domain_dns", args=[domain.pk]) + query


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def without_token(response: Any) -> bytes:
    """A page without what is another in each."""
    return re.sub(rb'(csrfmiddlewaretoken" value=)"\w+"', rb"\1", response.content)


def test_the_values_are_shown_before_dns_is_asked(boss: Client, acme: Customer, published: NameServer) -> None:
    shown = page(boss, dns(acme.domain))
    for text in (
        "10 mail.host.example.", "v=spf1 include:_spf.host.example ~all", "_pop3s._tcp.acme.test",
        "autoconfig.acme.test", acme.domain.verification_token, "acme.test. 3600 IN MX 10 mail.host.example.",
        'data-ask="?asked=1"',
    ):  # fmt: skip
        assert text in shown
    assert published.asked == []
    assert "dns-state" not in shown


def test_the_states_are_said_in_words(boss: Client, acme: Customer, published: NameServer) -> None:
    shown = page(boss, dns(acme.domain, "?asked=1"))
    assert "11 of 11 records are right." in shown
    assert "data-ask" not in shown
    published.records["acme.test"] = [
        "acme.test MX 10 mail.host.example.", 'acme.test TXT "v=spf1 mx <script>alert(1)</script> -all"'
    ]  # fmt: skip
    published.records["_dmarc.acme.test"] = None
    shown = page(boss, dns(acme.domain, "?asked=1"))
    assert "9 of 11 records are right. 1 is to be mended." in shown
    assert "No receiver understands “&lt;script&gt;" in shown
    assert "<script>alert" not in shown
    assert "DNS did not answer within 3 seconds" in shown


def test_what_an_spf_record_should_become_is_what_is_copied(
    boss: Client, acme: Customer, published: NameServer
) -> None:
    published.records["acme.test"] = ['acme.test TXT "v=spf1 mx -all"']
    shown = page(boss, dns(acme.domain, "?asked=1"))
    assert "<dt>Change it into</dt>" in shown
    assert ">v=spf1 mx include:_spf.host.example -all</code>" in shown
    assert "; in place of the one that is there:" in shown


def test_an_international_name_is_shown_as_people_write_it(boss: Client, acme: Customer, published: NameServer) -> None:
    domain, _ = provisioning.add_domain("bücher.test", tenant=acme.tenant, alias_of=acme.domain)
    shown = page(boss, dns(domain))
    assert "bücher.test" in shown
    assert "_pop3s._tcp.xn--bcher-kva.test" in shown
    assert "It is an alias of acme.test" in shown


@pytest.mark.parametrize("role", [Role.TENANT_ADMIN, Role.DOMAIN_ADMIN, Role.SUPPORT])
def test_who_reads_a_domain_reads_its_dns_and_of_others_nothing_is_asked(
    acme: Customer, globex: Customer, published: NameServer, role: str
) -> None:
    domains = [acme.domain] if role == Role.DOMAIN_ADMIN else []
    who = signed_in(
        provisioning.add_staff("who@acme.example", password=None, tenant=acme.tenant, role=role, domains=domains)
    )
    assert dns(acme.domain) in page(who, reverse("admin:accounts_domain_changelist"))
    assert dns(acme.domain) in page(who, reverse("admin:accounts_domain_change", args=[acme.domain.pk]))
    shown = page(who, dns(acme.domain, "?asked=1"))
    assert "globex" not in shown
    assert ("Check whose it is" in shown) == (role != Role.SUPPORT)
    published.asked.clear()
    for path in (dns(globex.domain), dns(globex.domain, "?asked=1"), dns(globex.domain).replace("dns", "check")):
        for method in (who.get, who.post):
            theirs = method(path)
            page(who, reverse("admin:language"))  # shows what was said, which else the next refusal would
            nothing = method(path.replace(f"/{globex.domain.pk}/", "/999999/"))
            page(who, reverse("admin:language"))
            assert (theirs.status_code, without_token(theirs)) == (nothing.status_code, without_token(nothing))
            assert theirs.status_code in (302, 403)
    assert published.asked == []


@pytest.mark.django_db(transaction=True)
def test_no_transaction_of_the_admin_waits_for_dns(
    boss: Client, acme: Customer, published: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    ask = asking.ask

    def watched(*arguments: Any, **options: Any) -> Any:
        held.append(connection.in_atomic_block)
        return ask(*arguments, **options)

    monkeypatch.setattr(asking, "ask", watched)
    page(boss, dns(acme.domain, "?asked=1"))
    answer = boss.post(reverse("admin:accounts_domain_check", args=[acme.domain.pk]), follow=True)
    assert "The record is there." in answer.content.decode()
    assert held == [False, False]
    acme.domain.refresh_from_db()
    assert (acme.domain.state, verification.is_trusted(acme.domain)) == ("verified", False)


def test_a_closed_domain_has_no_page(boss: Client, acme: Customer, published: NameServer) -> None:
    provisioning.close_domain(acme.domain)
    assert dns(acme.domain) not in page(boss, reverse("admin:accounts_domain_changelist"))
    assert boss.get(dns(acme.domain)).status_code == 302
