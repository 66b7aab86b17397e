"""Whom an address of an envelope stands for: mailboxes, aliases, catch-alls, subaddresses, alias domains, states."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import provisioning
from accounts.models import Alias, AliasTarget, Domain, Mailbox
from mailstore import drift
from mailstore.delivery import Deferred, Outcome, Suspended, UnknownDomain, UnknownMailbox, UnverifiedDomain
from mailstore.models import Message
from tests.fixtures import Customer
from tests.mailstore import post

pytestmark = pytest.mark.django_db(transaction=True)


def reaches(address: str, **options: Any) -> list[str]:
    """The mailboxes that a message to this address came to, or the name of the refusal."""
    before = set(Message.objects.values_list("pk", flat=True))
    [outcome] = post.deliver(post.text(), address, **options)
    assert outcome is Outcome.STORED or isinstance(outcome, Exception), outcome
    assert list(drift.find()) == []
    if isinstance(outcome, Exception):
        return [type(outcome).__name__]
    new = Message.objects.exclude(pk__in=before)
    return sorted(new.values_list("mailbox__address", flat=True))


def alias(address: str, *mailboxes: Mailbox, expires: timedelta | None = None) -> Alias:
    made, _ = provisioning.set_alias(address, tenant_id=mailboxes[0].tenant_id, mailboxes=mailboxes)
    if expires is not None:
        Alias.objects.filter(pk=made.pk).update(expires_at=timezone.now() + expires)
    return made


NOBODY = [UnknownMailbox.__name__]


def test_an_alias_reaches_all_its_mailboxes_each_once(acme: Customer) -> None:
    binh, chi = acme.add("binh"), acme.add("chi")
    alias("team@acme.test", acme.mailbox, binh, chi)
    assert reaches("team@acme.test") == ["an@acme.test", "binh@acme.test", "chi@acme.test"]
    [first, second] = post.deliver(post.text(), "team@acme.test", "binh@acme.test")
    assert (first, second) == (Outcome.STORED, Outcome.STORED)
    assert Message.objects.filter(mailbox=binh).count() == 2
    provisioning.close_mailbox(binh)
    assert reaches("team@acme.test") == ["an@acme.test", "chi@acme.test"]


def test_an_alias_takes_nothing_once_it_has_expired(acme: Customer) -> None:
    alias("soon@acme.test", acme.mailbox, expires=timedelta(minutes=1))
    alias("late@acme.test", acme.mailbox, expires=-timedelta(minutes=1))
    assert reaches("soon@acme.test") == ["an@acme.test"]
    assert reaches("late@acme.test") == NOBODY


def test_a_catch_all_takes_what_was_never_anybodys(acme: Customer, globex: Customer) -> None:
    binh, chi = acme.add("binh"), acme.add("chi")
    alias("sales@acme.test", chi)
    alias("late@acme.test", chi, expires=-timedelta(minutes=1))
    alias("of-chi@acme.test", chi)
    alias("@acme.test", acme.mailbox)
    assert reaches("whoever@acme.test") == ["an@acme.test"]
    assert reaches("whoever+tag@acme.test") == ["an@acme.test"]
    assert reaches("binh@acme.test") == reaches("binh+tag@acme.test") == ["binh@acme.test"]
    assert reaches("sales@acme.test") == ["chi@acme.test"]
    assert reaches("late@acme.test") == reaches("late+x@acme.test") == NOBODY
    provisioning.close_mailbox(binh)
    provisioning.close_mailbox(chi)
    for quarantined in ("binh@acme.test", "binh+tag@acme.test", "chi@acme.test", "of-chi@acme.test"):
        assert reaches(quarantined) == NOBODY
    assert reaches("whoever@globex.test") == NOBODY
    assert reaches('"no name"@acme.test') == reaches('""@acme.test') == NOBODY


def test_postmaster_is_the_admin_mailboxs_also_where_there_is_a_catch_all(acme: Customer) -> None:
    admin = acme.add("admin")
    alias("@acme.test", acme.mailbox)
    assert reaches("postmaster@acme.test") == ["an@acme.test"]
    provisioning.change_tenant(acme.tenant, admin_mailbox=admin)
    assert reaches("postmaster@acme.test") == reaches("Postmaster+x@acme.test") == ["admin@acme.test"]
    alias("postmaster@acme.test", acme.mailbox)
    assert reaches("postmaster@acme.test") == ["an@acme.test"]


@pytest.mark.parametrize(
    ("of_domain", "of_host", "asked"),
    [
        (None, "+", {"an+x": True, "an-x": False, "an+": True}),
        ("", "+", {"an+x": False, "an-x": False}),
        ("-", "+", {"an+x": False, "an-x": True, "an-x+y-z": True, "-an": False}),
        (None, "", {"an+x": False}),
        ("+", "", {"an+x": True}),
    ],
)
def test_each_domain_has_its_own_separator(
    acme: Customer, of_domain: str | None, of_host: str, asked: dict[str, bool]
) -> None:
    Domain.objects.filter(pk=acme.domain.pk).update(subaddress=of_domain)
    deliver: Callable[[str], object] = lambda local: post.deliver(  # noqa: E731
        post.text(), f"{local}@acme.test", subaddress=of_host
    )[0]
    assert {local: deliver(local) == Outcome.STORED for local in asked} == asked


def test_an_alias_domain_stands_for_another_one_step(acme: Customer, globex: Customer) -> None:
    second, _ = provisioning.add_domain("acme.example", tenant=acme.tenant)
    third, _ = provisioning.add_domain("acme.invalid", tenant=acme.tenant)
    Domain.objects.filter(pk=second.pk).update(alias_of=acme.domain)
    Domain.objects.filter(pk=third.pk).update(alias_of=second)
    alias("team@acme.test", acme.mailbox)
    assert reaches("an@acme.example") == reaches("team+x@acme.example") == ["an@acme.test"]
    assert reaches("an@acme.invalid") == NOBODY
    assert reaches("nobody@acme.example") == NOBODY


def test_a_closed_domain_is_none(acme: Customer) -> None:
    provisioning.change_tenant(acme.tenant, admin_mailbox=acme.mailbox)
    second, _ = provisioning.add_domain("acme.example", tenant=acme.tenant)
    assert reaches("postmaster@acme.example") == ["an@acme.test"]
    provisioning.close_domain(second)
    assert reaches("postmaster@acme.example") == [UnknownDomain.__name__]


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        ("receive", "pending", ["an@acme.test"]),
        ("defer", "pending", [UnverifiedDomain.__name__]),
        ("refuse", "pending", [UnknownDomain.__name__]),
        ("refuse", "verified", ["an@acme.test"]),
        ("refuse", "failing", ["an@acme.test"]),
    ],
)
def test_an_unverified_domain_receives_by_policy(acme: Customer, policy: str, state: str, expected: list[str]) -> None:
    Domain.objects.filter(pk=acme.domain.pk).update(state=state)
    assert reaches("an@acme.test", unverified=policy) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Mailbox.State.NO_LOGIN, ["an@acme.test"]),
        (Mailbox.State.NO_RECEIVE, [Deferred.__name__]),
        (Mailbox.State.SUSPENDED, [Suspended.__name__]),
    ],
)
def test_the_state_of_a_mailbox_counts(acme: Customer, state: Mailbox.State, expected: list[str]) -> None:
    Mailbox.objects.filter(pk=acme.mailbox.pk).update(state=state)
    assert reaches("an@acme.test") == expected


def test_what_one_target_refuses_for_good_the_others_still_get(acme: Customer) -> None:
    full = acme.add("full", quota_octets=1)
    alias("team@acme.test", acme.mailbox, full)
    assert reaches("team@acme.test") == ["an@acme.test"]


def test_targets_of_another_tenant_cannot_be(acme: Customer, globex: Customer) -> None:
    made = alias("team@acme.test", acme.mailbox)
    AliasTarget.objects.filter(alias=made).delete()
    assert reaches("team@acme.test") == NOBODY
