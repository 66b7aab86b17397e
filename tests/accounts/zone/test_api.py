"""A domain's DNS over the API: asked while no transaction is held."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from accounts import verification
from accounts.api import domains
from accounts.models import Domain
from accounts.zone import asking
from accounts.zone.records import Hosted, Purpose, this_host
from tests.accounts.api.programs import Program, refusal, token_text
from tests.accounts.nameserver import NameServer
from tests.accounts.zone.conftest import all_right
from tests.fixtures import Customer


@pytest.fixture
def published(acme: Customer, globex: Customer, server: NameServer) -> Iterator[NameServer]:
    """A name server in which everything of both tenants' domains is right."""
    Domain.objects.update(state="pending")
    where = {
        "MAILHOST_DNS_SERVERS": [("127.0.0.1", server.port)],
        "MAILHOST_PUBLIC_NAME": "mail.host.example",
        "MAILHOST_SPF_INCLUDE": "_spf.host.example",
    }
    with override_settings(**where):
        server.records = {}
        for domain in Domain.objects.all():
            server.records |= all_right(Hosted.of(domain), this_host())
        yield server


@pytest.fixture
def admin(acme: Customer) -> Program:
    return Program(token_text("tenant-admin", tenant=acme.tenant))


def test_a_program_reads_what_to_publish_and_what_is_there(admin: Program, published: NameServer) -> None:
    published.records["_dmarc.acme.test"] = ['_dmarc.acme.test TXT "v=DMARC1"']
    found = admin.read("/domains/ACME.test/dns/")
    verdicts = {record["purpose"]: record["verdict"] for record in found["records"]}
    assert verdicts.pop("dmarc") == "wrong"
    assert set(verdicts.values()) == {"right"}
    assert verdicts.keys() | {"dmarc", "submissions"} == {purpose.value for purpose in Purpose}
    assert "acme.test. 3600 IN MX 10 mail.host.example." in found["zone_file"]
    assert admin.read("/domains/acme.test/dns/", "fields=domain") == {"domain": "acme.test"}
    answer = admin.send("GET", "/domains/acme.test/dns/")
    assert admin.send("GET", "/domains/acme.test/dns/", if_none_match=answer["ETag"]).status_code == 304


def test_of_anothers_domain_dns_is_not_even_asked(admin: Program, published: NameServer) -> None:
    for name in ("globex.test", "nobody.test", "%00"):
        assert refusal(admin.send("GET", f"/domains/{name}/dns/"), 404)["code"] == "not-found"
        assert refusal(admin.send("POST", f"/domains/{name}/check/"), 404)["code"] == "not-found"
    assert published.asked == []


def test_dns_is_asked_so_often_and_no_more(
    admin: Program, published: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "_MOST_LOOKS", 1)
    assert admin.send("POST", "/domains/acme.test/check/").status_code == 200
    assert refusal(admin.send("GET", "/domains/acme.test/dns/"), 429)["code"] == "too-many-requests"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("method", "action"), [("GET", "dns"), ("POST", "check")])
def test_no_transaction_waits_for_dns(
    admin: Program, published: NameServer, monkeypatch: pytest.MonkeyPatch, method: str, action: str
) -> None:
    held: list[Any] = []
    ask: Callable[..., Any] = asking.ask

    def watched(*arguments: Any, **options: Any) -> Any:
        held.append(connection.in_atomic_block)
        return ask(*arguments, **options)

    monkeypatch.setattr(asking, "ask", watched)
    assert admin.send(method, f"/domains/acme.test/{action}/").status_code == 200
    assert held == [False]
    if action == "check":
        assert Domain.objects.get(name="acme.test").state == "verified"
        assert not verification.is_trusted(Domain.objects.get(name="acme.test"))


def test_a_dry_run_asks_nobody(admin: Program, published: NameServer) -> None:
    assert admin.send("POST", "/domains/acme.test/check/", query="dry_run=true").status_code == 200
    assert published.asked == []
