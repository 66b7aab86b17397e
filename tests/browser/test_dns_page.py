"""The admin's page about a domain's DNS in a real browser: what is wrong is told, and values are copied."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from accounts import provisioning
from accounts.zone.records import Hosted, this_host
from tests.accounts.nameserver import NameServer, name_server
from tests.accounts.zone.conftest import all_right
from tests.browser.looking import browser, expect, look, needs_chromium
from tests.fixtures import Customer

pytestmark = needs_chromium


@pytest.fixture
def published(acme: Customer) -> Iterator[NameServer]:
    """A name server in which not everything of acme's domain is right."""
    with name_server() as server:
        where = {
            "MAILHOST_DNS_SERVERS": [("127.0.0.1", server.port)],
            "MAILHOST_PUBLIC_NAME": "mail.host.example",
            "MAILHOST_SPF_INCLUDE": "_spf.host.example",
        }
        with override_settings(**where):
            server.records = all_right(Hosted.of(acme.domain), this_host())
            server.records["acme.test"] = [
                "acme.test MX 10 mail.host.example.",
                'acme.test TXT "v=spf1 mx include:_spf.google.example -all"',
            ]
            del server.records["_pop3s._tcp.acme.test"]
            server.records["_autodiscover._tcp.acme.test"] = None
            yield server


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_an_admin_sees_what_is_wrong_and_copies_what_is_right(
    acme: Customer, published: NameServer, live_server: Any, width: int, height: int
) -> None:
    signed_in = Client()
    signed_in.force_login(provisioning.add_staff("boss@acme.test", password=None, tenant=acme.tenant))
    session = signed_in.cookies["sessionid"].value
    with browser(width, height) as page:
        page.context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        page.goto(f"{live_server.url}{reverse('admin:accounts_domain_dns', args=[acme.domain.pk])}")
        page.get_by_text("DNS is asked.").wait_for()
        page.get_by_text("8 of 11 records are right. 2 are to be mended.").wait_for()
        spf = page.get_by_role("region", name="Who may send for it (SPF)")
        expect(spf).to_contain_text("Your record lacks include:_spf.host.example")
        spf.get_by_role("button", name="Copy the value").click()
        spf.get_by_text("Copied").wait_for()
        selected = page.evaluate("getSelection().toString()")
        assert selected == "v=spf1 mx include:_spf.google.example include:_spf.host.example -all"
        fetching = page.get_by_role("region", name="Where mail programs fetch mail")
        expect(fetching.get_by_text("Missing")).to_be_visible()
        look(page, "dns")
