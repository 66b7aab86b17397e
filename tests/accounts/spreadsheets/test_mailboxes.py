"""Mailboxes as a CSV file: looked at whole, reported line by line, and read again as they were written."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import limits, provisioning
from accounts.models import AuditEvent, Domain, Mailbox
from accounts.provisioning import bulk
from accounts.provisioning.bulk import Item
from accounts.spreadsheets import BadLines, Report, mailboxes
from tests.fixtures import PASSWORD, Customer

GIGABYTE = 2**30


def apply(text: str, **more: Any) -> Report:
    return mailboxes.apply(mailboxes.read(text.encode()), **{"default_quota": GIGABYTE, **more})


def check(text: str, **more: Any) -> Report:
    return mailboxes.check(mailboxes.read(text.encode()), **{"default_quota": GIGABYTE, **more})


def problems(text: str, **more: Any) -> list[tuple[int, str]]:
    """What is wrong with a file, which both ways of looking at it must find."""
    before = list(Mailbox.objects.order_by("pk").values())
    with pytest.raises(BadLines) as refused:
        apply(text, **more)
    assert check(text, **more).problems == refused.value.report.problems
    assert list(Mailbox.objects.order_by("pk").values()) == before
    return [(line, column) for line, column, _ in refused.value.report.problems]


ALL = f"""\
{",".join(mailboxes.COLUMNS)}
binh@acme.test,secret,,10M,Bình,u-7,suspended,not paid,off,192.0.2.0/24 2001:db8::/32,14d
chi@acme.test,,$2b$04$GgN.dlSvfFlzNQbtCCCOBerLCDKhSPrP0Zoc.3Gny6kf0k0StZTfS,,,,,,,,
"""


def test_every_column_is_taken(acme: Customer) -> None:
    assert check(ALL) == Report(created=2)
    assert Mailbox.objects.count() == 1
    assert apply(ALL) == Report(created=2)
    binh = provisioning.find_mailbox("binh@acme.test")
    assert (binh.name, binh.external_id, binh.state, binh.state_reason) == ("Bình", "u-7", "suspended", "not paid")
    assert (binh.quota_octets, binh.pop3_enabled, binh.retention) == (10 * 2**20, False, timedelta(days=14))
    assert binh.allowed_networks == ["192.0.2.0/24", "2001:db8::/32"]
    assert authenticate(username="binh@acme.test", password="secret")
    chi = provisioning.find_mailbox("chi@acme.test")
    assert (chi.quota_octets, chi.pop3_enabled, chi.state) == (GIGABYTE, True, "active")
    assert chi.user.password.startswith("bcrypt")


def test_existing_ones_stay_as_they_are_unless_they_are_to_be_updated(acme: Customer) -> None:
    text = "address,quota,name\nan@acme.test,5M,An\nbinh@acme.test,,\n"
    assert apply(text) == Report(created=1, unchanged=1)
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.quota_octets, acme.mailbox.name) == (None, "")
    assert check(text, update=True) == apply(text, update=True) == Report(changed=1, unchanged=1)
    assert check(text, update=True) == Report(unchanged=2)
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.quota_octets, acme.mailbox.name) == (5 * 2**20, "An")
    assert authenticate(username="an@acme.test", password=PASSWORD)


def test_an_empty_cell_says_nothing_or_none(acme: Customer) -> None:
    provisioning.change_mailbox(acme.mailbox, name="An", quota_octets=7, pop3_enabled=False)
    apply("address,name,quota,pop3,state\nan@acme.test,,,,\n", update=True)
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.name, acme.mailbox.quota_octets, acme.mailbox.pop3_enabled) == ("", 7, False)


def test_every_bad_line_is_told_and_nothing_is_done(acme: Customer) -> None:
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    provisioning.close_mailbox(acme.add("old"))
    assert problems(
        "address,password,quota,state,state_reason,pop3,allowed_networks,retention,external_id\n"
        "good@acme.test,secret,1M,active,,on,,,\n"
        "nonsense,secret,much,,,,,,\n"
        "x@elsewhere.test,,,,,,,,\n"
        "sales@acme.test,,,,,,,,\n"
        "old@acme.test,,,,,,,,\n"
        "GOOD@acme.test,,,,,,,,\n"
        "chi@acme.test,\x01,,,,,,,\n"
        "dung@acme.test,,,asleep,,,,,\n"
        "giang@acme.test,,,,because,,,,\n"
        "hoa@acme.test,,,,,perhaps,,,\n"
        "khoa@acme.test,,,,,,everywhere,,\n"
        "lan@acme.test,,,,,,,soon,\n"
        "minh@acme.test,,,,,,,99999d,\n"
        "nam@acme.test,,,,,,,,1,2\n"
    ) == [
        (3, "address"),
        (3, "quota"),
        (4, "address"),
        (5, "address"),
        (6, "address"),
        (7, "address"),
        (8, "password"),
        (9, "state"),
        (10, "state_reason"),
        (11, "pop3"),
        (12, "allowed_networks"),
        (13, "retention"),
        (14, "retention"),
        (15, ""),
    ]


def test_a_limit_is_told_before_anything_is_done(acme: Customer) -> None:
    limits.set_limits(acme.domain, max_mailboxes=2)
    assert problems("address\nbinh@acme.test\nchi@acme.test\n") == [(3, "")]


def test_a_password_or_its_hash(acme: Customer) -> None:
    text = "address,password,password_hash\nbinh@acme.test,secret,{PLAIN}secret\nchi@acme.test,,nonsense\n"
    assert problems(text) == [(2, "password_hash"), (3, "password_hash")]


def test_without_names_of_columns_a_line_has_a_password(acme: Customer) -> None:
    assert problems("binh@acme.test,secret\nchi@acme.test,\ndung@acme.test\n") == [(2, "password"), (3, "password")]


def test_domains_that_do_not_exist_for_whoever_asks_are_not_hosted(acme: Customer, globex: Customer) -> None:
    within = Domain.objects.filter(tenant=acme.tenant)
    reasons = set()
    for host in ("globex.test", "nowhere.test"):
        for name in ("an", "new"):
            for update in (False, True):
                report = check(f"address,quota\n{name}@{host},1M\n", within=within, update=update)
                [(line, column, reason)] = report.problems
                assert (line, column) == (2, "address")
                reasons.add(reason.replace(host, "HOST"))
    assert reasons == {"HOST is not hosted here"}
    assert apply("address\nnew@acme.test\n", within=within).created == 1


def test_what_is_only_looked_at_leaves_no_trace(acme: Customer) -> None:
    before = AuditEvent.objects.count()
    check("address,password,state\nbinh@acme.test,secret,suspended\nan@acme.test,another,suspended\n", update=True)
    assert AuditEvent.objects.count() == before
    assert authenticate(username="an@acme.test", password=PASSWORD)


# --- Out, and in again ---------------------------------------------------------------------------------------------


def written(rows: Any = None, **more: Any) -> str:
    found = Mailbox.objects.all() if rows is None else rows
    return b"".join(mailboxes.write(found, **more)).decode()


def test_a_hash_is_written_only_to_whoever_asks_for_it(acme: Customer) -> None:
    assert "hash" not in written()
    assert "argon2" not in written()
    acme.add("binh")  # has no password
    lines = written(with_hashes=True).splitlines()
    assert lines[1].startswith('an@acme.test,"argon2$')
    assert lines[2].startswith("binh@acme.test,,")


def test_hashes_come_along(acme: Customer) -> None:
    text = written(with_hashes=True).replace("an@acme.test", "binh@acme.test")
    assert apply(text) == Report(created=1)
    assert authenticate(username="binh@acme.test", password=PASSWORD)


def test_closed_ones_and_those_of_others_are_left_out(acme: Customer, globex: Customer) -> None:
    provisioning.close_mailbox(acme.add("old"))
    text = written(Mailbox.objects.filter(tenant=acme.tenant))
    assert [line.partition(",")[0] for line in text.splitlines()] == ["address", "an@acme.test"]


def test_a_formula_is_text_to_a_spreadsheet_and_itself_to_us(acme: Customer) -> None:
    provisioning.change_mailbox(acme.mailbox, name='=HYPERLINK("http://x.example/")', external_id="@SUM(1)")
    text = written()
    assert ",\"'=HYPERLINK" in text
    assert ",'@SUM(1)," in text
    assert check(text, update=True) == Report(unchanged=1)


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" ,;'=+-@\""), max_size=20)
PRINTABLE = PRINTABLE.filter(str.isprintable).map(str.strip)
VALUES = st.fixed_dictionaries(
    {
        "name": PRINTABLE,
        "external_id": st.none() | PRINTABLE.map(lambda text: text or None),
        "quota_octets": st.none() | st.integers(0, 2**62) | st.integers(0, 999).map(lambda number: number * 2**20),
        "pop3_enabled": st.booleans(),
        "allowed_networks": st.lists(st.ip_addresses().map(str), max_size=3),
        "retention": st.none()
        | st.timedeltas(timedelta(0), timedelta(days=36500))
        | st.integers(0, 36500).map(lambda days: timedelta(days=days)),
    }
)
LOCAL_PARTS = st.from_regex(r"\A[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}\Z")
STATES = st.tuples(st.sampled_from(Mailbox.State.values), PRINTABLE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(found=st.dictionaries(LOCAL_PARTS, st.tuples(VALUES, STATES), min_size=1, max_size=4))
def test_what_is_written_brings_the_same_mailboxes_back(
    acme: Customer, found: dict[str, tuple[dict[str, Any], tuple[str, str]]]
) -> None:
    ids: set[str | None] = set()
    items = []
    for local_part, (values, (state, reason)) in found.items():
        external_id = None if values["external_id"] in ids else values["external_id"]
        ids.add(external_id)
        address = f"{local_part}@acme.test"
        values = values | {"external_id": external_id}
        items.append(Item(action="put", address=address, values=values, state=state, state_reason=reason))

    def held() -> list[dict[str, Any]]:
        fields = ("address", "name", "external_id", "quota_octets", "pop3_enabled", "allowed_networks", "retention")
        return list(Mailbox.objects.open().order_by("address").values(*fields, "state", "state_reason"))

    with transaction.atomic():
        bulk.apply(items, atomic=True)
        before, text = held(), written()
        assert check(text, update=True) == Report(unchanged=len(before))
        for mailbox in Mailbox.objects.open():
            provisioning.close_mailbox(mailbox)
        Mailbox.objects.update(address="gone@acme.test")
        assert apply(text) == Report(created=len(before))
        assert held() == before
        transaction.set_rollback(True)
