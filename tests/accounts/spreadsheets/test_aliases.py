"""Aliases as a CSV file."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import provisioning
from accounts.models import Alias, Domain
from accounts.spreadsheets import BadLines, Report, aliases
from tests.fixtures import Customer


@pytest.fixture(autouse=True)
def with_an_mta(settings: Any) -> None:
    settings.MAILHOST_FORWARD_SMTP = "127.0.0.1:25"


def apply(text: str, **more: Any) -> Report:
    return aliases.apply(aliases.read(text.encode()), **more)


def check(text: str, **more: Any) -> Report:
    return aliases.check(aliases.read(text.encode()), **more)


def written() -> str:
    return b"".join(aliases.write(Alias.objects.all())).decode()


def test_aliases_come_in_and_go_out_and_come_in_again(acme: Customer) -> None:
    acme.add("binh")
    text = (
        "targets;address;expires_at\n"
        "an@acme.test  BINH@acme.test;Sales@acme.test;2999-01-31\n"
        "an@acme.test someone@elsewhere.example;@acme.test;\n"
    )
    assert check(text) == Report(created=2)
    assert not Alias.objects.exists()
    assert apply(text) == Report(created=2)
    shown = written()
    assert shown.splitlines() == [
        "address,targets,expires_at",
        "'@acme.test,an@acme.test someone@elsewhere.example,",
        "sales@acme.test,an@acme.test binh@acme.test,2999-01-31T00:00:00+00:00",
    ]
    assert apply(shown) == check(shown, update=True) == apply(shown, update=True) == Report(unchanged=2)
    for alias in Alias.objects.all():
        provisioning.remove_alias(alias)
    assert apply(shown) == Report(created=2)
    assert written() == shown


def test_existing_ones_stay_unless_they_are_to_be_updated(acme: Customer) -> None:
    acme.add("binh")
    provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    text = "address,targets\nsales@acme.test,binh@acme.test\n"
    assert apply(text) == Report(unchanged=1)
    assert apply(text, update=True) == Report(changed=1)
    assert provisioning.targets_of(Alias.objects.get()) == ["binh@acme.test"]


def test_every_bad_line_is_told_and_nothing_is_done(acme: Customer) -> None:
    text = (
        "address,targets,expires_at\n"
        "good@acme.test,an@acme.test,\n"
        "nonsense,an@acme.test,\n"
        "x@elsewhere.test,an@acme.test,\n"
        "a@acme.test,,\n"
        "b@acme.test,nonsense,\n"
        "c@acme.test,nobody@acme.test,\n"
        "d@acme.test,an@acme.test,soon\n"
        "e@acme.test,an@acme.test,1999-01-01\n"
        "GOOD@acme.test,an@acme.test,\n"
        "an@acme.test,an@acme.test,\n"
    )
    with pytest.raises(BadLines) as refused:
        apply(text)
    assert check(text) == refused.value.report
    assert [(line, column) for line, column, _ in refused.value.report.problems] == [
        (3, "address"),
        (4, "address"),
        (5, "targets"),
        (6, "targets"),
        (7, "targets"),
        (8, "expires_at"),
        (9, "expires_at"),
        (10, "address"),
        (11, "address"),
    ]
    assert not Alias.objects.exists()


def test_another_tenant_s_domains_and_mailboxes_do_not_exist(acme: Customer, globex: Customer) -> None:
    within = Domain.objects.filter(tenant=acme.tenant)
    provisioning.add_alias("sales@globex.test", mailbox=globex.mailbox)

    def reasons(text: str) -> set[str]:
        hosts = ("globex.test", "nowhere.test")
        told = set()
        for host in hosts:
            for update in (False, True):
                report = check(text.format(host), within=within, update=update)
                told |= {problem.reason.replace(host, "HOST") for problem in report.problems}
        return told

    assert reasons("address,targets\nsales@{0},an@acme.test\n") == {"HOST is not hosted here"}
    assert check("address,targets\nx@acme.test,an@acme.test\n", within=within) == Report(created=1)


def test_what_takes_no_mail_is_not_written(acme: Customer) -> None:
    binh = acme.add("binh")
    provisioning.add_alias("old@acme.test", mailbox=acme.mailbox)
    Alias.objects.update(expires_at=timezone.now() - timedelta(days=1))
    provisioning.add_alias("his@acme.test", mailbox=binh)
    provisioning.set_alias("both@acme.test", tenant_id=acme.tenant.pk, mailboxes=[acme.mailbox, binh])
    provisioning.close_mailbox(binh)
    assert written().splitlines() == ["address,targets,expires_at", "both@acme.test,an@acme.test,"]
