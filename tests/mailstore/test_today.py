"""The first page of the admin: each sees his own numbers, and each number leads to the rows behind it."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import limits, provisioning
from accounts.models import Domain, Mailbox, Reseller, Tenant, little_room
from mailstore import background
from mailstore.models import BackgroundRun, HourlyStatistics, Listener, PurgeForecast, Rollup
from tests.fixtures import Customer, signed_in
from tests.mailstore import rows, today

pytestmark = pytest.mark.django_db


@pytest.fixture
def two(acme: Customer, globex: Customer) -> tuple[Customer, Customer]:
    """Two tenants with a past, of which the second has three times as much."""
    today.of(acme)
    today.of(globex, size=3)
    today.crowd(acme)
    return acme, globex


def context_of(browser: Client, **query: str) -> Any:
    answer = browser.get("/admin/", query)
    assert answer.status_code == 200
    return answer.context


def numbers(browser: Client) -> dict[str, str]:
    return {number.name: number.value for _, group in context_of(browser)["numbers"] for number in group}


def staff(role: str, customer: Customer | None = None, **more: Any) -> Client:
    tenant = customer.tenant if customer else None
    return signed_in(provisioning.add_staff(f"{role}@staff.test", password=None, tenant=tenant, role=role, **more))


def links_in(page: str) -> set[str]:
    content = page[page.index('<div class="today">') :]
    return {unescape(link) for link in re.findall(r'href="(/admin/[^"]*)"', content)}


def test_a_tenants_admin_sees_its_own(two: tuple[Customer, Customer], boss: Client, operator: Client) -> None:
    acme, globex = two
    own, others, all_of_it = numbers(boss), numbers(staff("tenant-admin", globex)), numbers(operator)
    assert own == {
        "delivered": f"{_delivered(acme):,}",
        "fetched": own["fetched"],
        "refused": "17",
        "failed-logins": "33",
        "room": "6",
        "domains": "1",
        "mailboxes": "7",
        "sessions": "1",
    }
    assert others["refused"] == "51"
    assert others["room"] == others["domains"] == others["sessions"] == "0"
    assert all_of_it["refused"] == "68"
    assert all_of_it["mailboxes"] == "8"
    page = boss.get("/admin/").content.decode()
    assert "globex" not in page
    assert "Celery" not in page


def _delivered(customer: Customer) -> int:
    since = timezone.now() - timedelta(days=1)
    found = HourlyStatistics.objects.filter(domain=customer.domain, start__gte=since)
    return sum(row.delivered for row in found)


def test_who_looks_after_one_domain_sees_that(two: tuple[Customer, Customer]) -> None:
    acme, _ = two
    other, _ = provisioning.add_domain("other.test", tenant=acme.tenant)
    assert set(numbers(staff("domain-admin", acme, domains=[other])).values()) == {"0"}
    assert (
        numbers(
            signed_in(
                provisioning.add_staff(
                    "it@acme.test", password=None, tenant=acme.tenant, role="domain-admin", domains=[acme.domain]
                )
            )
        )["refused"]
        == "17"
    )


def test_a_reseller_sees_its_tenants(two: tuple[Customer, Customer]) -> None:
    acme, _ = two
    reseller = Reseller.objects.create(slug="shop", name="Shop")
    Tenant.objects.filter(pk=acme.tenant.pk).update(reseller=reseller)
    found = numbers(staff("reseller", reseller=reseller))
    assert (found["refused"], found["mailboxes"]) == ("17", "7")


def test_support_sees_as_much(two: tuple[Customer, Customer]) -> None:
    acme, _ = two
    assert numbers(staff("support", acme))["refused"] == "17"


@pytest.mark.parametrize("who", ["operator", "boss", "support", "domain-admin", "reseller"])
def test_every_link_leads_to_rows(two: tuple[Customer, Customer], operator: Client, boss: Client, who: str) -> None:
    acme, _ = two
    today.run_everything()
    reseller = Reseller.objects.create(slug="shop", name="Shop")
    Tenant.objects.filter(pk=acme.tenant.pk).update(reseller=reseller)
    browser = {
        "operator": lambda: operator,
        "boss": lambda: boss,
        "support": lambda: staff("support", acme),
        "domain-admin": lambda: staff("domain-admin", acme, domains=[acme.domain]),
        "reseller": lambda: staff("reseller", reseller=reseller),
    }[who]()
    found = links_in(browser.get("/admin/").content.decode())
    assert len(found) > 15
    for link in found:
        assert browser.get(link).status_code == 200, link


def test_a_number_is_that_of_the_rows_behind_it(two: tuple[Customer, Customer], boss: Client, operator: Client) -> None:
    acme, _ = two
    today.refuse(acme, "over quota", 99, ago=timedelta(hours=30))
    for browser in (boss, operator):
        shown = {number.name: number for _, group in context_of(browser)["numbers"] for number in group}

        def listed(name: str, browser: Client = browser, shown: Any = shown) -> Any:
            return browser.get(shown[name].link).context["cl"].queryset

        def value(name: str, shown: Any = shown) -> int:
            return int(shown[name].value.replace(",", ""))

        assert value("refused") == sum(row.count for row in listed("refused"))
        assert value("failed-logins") == sum(row.count for row in listed("failed-logins"))
        assert value("room") == listed("room").count()
        assert value("domains") == listed("domains").count()
        assert value("sessions") == listed("sessions").count()
        assert value("delivered") == sum(row.delivered for row in listed("delivered"))
        assert value("fetched") == sum(row.fetched for row in listed("fetched"))
        for text, link in shown["refused"].more:
            rows_of_reason = browser.get(link).context["cl"].queryset
            assert int(text.split()[0]) == sum(row.count for row in rows_of_reason)
        for text, link in shown["room"].more:
            assert int(text.split()[0]) == browser.get(link).context["cl"].queryset.count()


def test_what_goes_on_a_day_is_listed(acme: Customer, globex: Customer, boss: Client, operator: Client) -> None:
    now = timezone.now()
    rows.add_message(acme.mailbox, subject="late", expunged_at=now - timedelta(days=20))
    rows.add_message(acme.mailbox, subject="today", expunged_at=now - timedelta(days=14))
    rows.add_message(acme.mailbox, subject="in three days", expunged_at=now - timedelta(days=11))
    rows.add_message(acme.mailbox, subject="stays")
    rows.add_message(globex.mailbox, subject="of others", expunged_at=now - timedelta(days=11))
    for number, messages in ((0, 2), (3, 1)):
        PurgeForecast.objects.create(
            tenant=acme.tenant, domain=acme.domain, day=(now + timedelta(days=number)).date(),
            messages=messages, octets=10, mailboxes=0,
        )  # fmt: skip
    days = context_of(boss)["forecast"]
    assert [day.messages for day in days] == [2, 0, 0, 1, 0, 0, 0]

    def listed(browser: Client, link: str) -> list[str]:
        return sorted(message.subject for message in browser.get(link).context["cl"].queryset)

    assert listed(boss, days[0].link) == ["late", "today"]
    assert listed(boss, days[3].link) == ["in three days"]
    assert listed(operator, f"/admin/mailstore/message/?goes={days[3].day}") == ["in three days", "of others"]
    by_domain = operator.get(context_of(operator)["forecast"][3].link)
    assert [row.domain for row in by_domain.context["cl"].queryset] == [acme.domain]
    of_domain = f"/admin/mailstore/message/?goes={days[3].day}&mailbox__domain__id__exact={acme.domain.pk}"
    assert of_domain.replace("&", "&amp;") in by_domain.content.decode()
    assert listed(operator, of_domain) == ["in three days"]
    page = boss.get("/admin/mailstore/purgeforecast/").content.decode()
    assert f"mailbox__domain__id__exact={acme.domain.pk}" in page
    for nonsense in ("x", "2026-13-40", "9999-12-31", "0001-01-01"):
        assert boss.get("/admin/mailstore/message/", {"goes": nonsense}).status_code == 200
        assert boss.get("/admin/mailstore/purgeforecast/", {"day": nonsense}).status_code == 200


@pytest.mark.parametrize("value", ["9" * 30, "9" * 5000, "٣", "2026-02-30"], ids=["large", "long", "Arabic", "no day"])
def test_what_no_link_asks_for_is_no_fault(acme: Customer, operator: Client, value: str) -> None:
    for name in ("refusal", "hourlystatistics", "purgeforecast", "backgroundrun", "message"):
        for parameter in ("tenant__id__exact", "domain__id__exact", "mailbox__id__exact", "day", "goes", "since", "of"):
            answer = operator.get(f"/admin/mailstore/{name}/", {parameter: value})
            assert answer.status_code in (200, 302, 400), (name, parameter)


def test_statistics_of_others_do_not_exist(two: tuple[Customer, Customer], boss: Client, operator: Client) -> None:
    acme, globex = two
    for name in ("hourlystatistics", "dailystatistics", "purgeforecast", "refusal"):
        list_ = f"/admin/mailstore/{name}/"
        assert {row.tenant for row in boss.get(list_).context["cl"].queryset} == {acme.tenant}
        others = boss.get(list_).context["cl"].model.objects.filter(tenant=globex.tenant).first()
        assert boss.get(f"{list_}{others.pk}/change/").status_code == 302
        assert operator.get(f"{list_}{others.pk}/change/").status_code == 200
        assert boss.get(list_, {"domain__id__exact": globex.domain.pk}).context["cl"].queryset.count() == 0
        if name != "refusal":
            assert boss.get(list_, {"of": "host"}).context["cl"].queryset.count() == 0
    assert boss.get("/admin/mailstore/backgroundrun/").status_code == 403


@pytest.mark.parametrize("span", ["day", "week", "month", "year", "nonsense"])
def test_charts_add_up(two: tuple[Customer, Customer], boss: Client, operator: Client, span: str) -> None:
    for browser in (boss, operator):
        deliveries, _, storage = context_of(browser, span=span)["charts"]
        assert not deliveries.is_empty
        assert len(deliveries.labels) == {"week": 28, "month": 30, "year": 53}.get(span, 24)
        assert sum(deliveries.series[0].values) > 0
        assert storage.series[0].values[-1] > 0
        if span == "day":
            assert f"{sum(deliveries.series[0].values):,}" == numbers(browser)["delivered"]


def test_an_empty_host_says_so(operator: Client) -> None:
    page = operator.get("/admin/").content.decode()
    assert "Nothing has been counted yet" in page
    assert "<canvas" not in page
    Rollup.objects.create(counted_at=timezone.now())
    assert "No mail came in this time." in operator.get("/admin/").content.decode()


def notices(browser: Client) -> list[str]:
    return [notice.text for notice in context_of(browser)["notices"]]


def test_what_stands_still_is_told_in_words(acme: Customer, operator: Client, boss: Client) -> None:
    assert notices(boss) == []
    assert "Nothing needs you now." in boss.get("/admin/").content.decode()
    assert sorted(notices(operator)) == [
        "Celery has not run yet: nothing is purged, and no domain is verified.",
        "No LMTP listener runs: no mail comes in.",
        "No POP3 listener runs: nobody can fetch mail.",
    ]
    today.run_everything()
    assert notices(operator) == []

    BackgroundRun.objects.filter(kind="worker").update(at=timezone.now() - timedelta(minutes=12, seconds=5))
    assert notices(operator) == [
        "Celery has not run for 12\xa0minutes: nothing is purged, and no domain is verified. Beat runs; workers do not."
    ]
    today.run_everything()
    BackgroundRun.objects.filter(kind="beat").update(at=timezone.now() - timedelta(minutes=12))
    assert notices(operator) == ["Celery beat does not run: nothing is asked for, and purging stands still."]
    today.run_everything()
    BackgroundRun.objects.filter(task="mailstore.tasks.purge").update(at=timezone.now() - timedelta(hours=3))
    assert notices(operator) == ["Late: purging. It last ended: 3\xa0hours ago."]
    background.note(BackgroundRun.Kind.WORKER, "celery@mail1", "mailstore.tasks.purge", error="OperationalError")
    assert notices(operator) == ["Failed the last time: purging (OperationalError)."]
    today.run_everything()
    Rollup.objects.create(counted_at=timezone.now() - timedelta(hours=2))
    assert "Statistics stand still" in notices(operator)[0]
    Listener.objects.filter(kind="lmtp").update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    assert notices(operator)[0] == "No LMTP listener runs: no mail comes in."


def test_what_needs_a_tenant_is_told(two: tuple[Customer, Customer], boss: Client) -> None:
    acme, _ = two
    limits.set_limits(acme.tenant, max_mailboxes=7)
    assert notices(boss) == [
        "1 mailbox is full: mail to it is refused.",
        "The claim to 1 domain lapses within 7 days: its TXT record is missing.",
        "1 tenant has nearly all mailboxes or octets that it may.",
    ]
    Domain.objects.filter(pk=acme.domain.pk).update(state="failing")
    assert "1 domain was verified once, and is not any more." in notices(boss)
    with override_settings(MAILHOST_UNVERIFIED_DOMAINS="receive"):
        assert not any("lapses" in text for text in notices(boss))


def test_little_room_is_found_by_its_index(acme: Customer) -> None:
    for percent, expected in ((80, 3), (90, 2), (100, 1)):
        for number, used in enumerate((79, 81, 95, 100)):
            if percent == 80:
                today.fill(acme.add(f"u{number}", quota_octets=1_000_000), used)
        assert Mailbox.objects.filter(little_room(percent)).count() == expected
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        assert "mailbox_with_little_room" in Mailbox.objects.filter(little_room(80)).order_by().explain()


@pytest.mark.parametrize("who", ["operator", "boss"])
def test_it_asks_little_and_reads_no_messages(
    two: tuple[Customer, Customer], operator: Client, boss: Client, who: str
) -> None:
    today.run_everything()
    browser = {"operator": operator, "boss": boss}[who]
    with CaptureQueriesContext(connection) as asked:
        answer = browser.get("/admin/")
    assert sum("FROM" in query["sql"] for query in asked.captured_queries) <= 22
    told = re.search(r"(\d+) queries, \d+ ms", answer.content.decode())
    assert told
    assert int(told[1]) <= 17
    large = ('FROM "mailstore_message"', 'FROM "mailstore_content"', "mailstore_deliveryledger")
    for query in asked.captured_queries:
        assert not any(table in query["sql"] for table in large), query["sql"]


def test_nobody_else_sees_it(acme: Customer) -> None:
    assert Client().get("/admin/").status_code == 302
    assert signed_in(acme.mailbox.user).get("/admin/").status_code == 302
