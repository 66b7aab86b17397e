"""A mailbox is charged for what lies in its maildrop, and never for more than its quota."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection

from accounts.models import Mailbox
from mailstore import quota
from mailstore.quota import QuotaExceeded
from tests.fixtures import Customer

pytestmark = pytest.mark.django_db(transaction=True)


def counters(mailbox: Mailbox) -> tuple[int, int]:
    mailbox.refresh_from_db()
    return mailbox.used_octets, mailbox.message_count


def test_the_last_octet_of_the_quota_can_be_used_and_no_more(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=100)
    quota.charge(mailbox, octets=60, messages=2)
    quota.charge(mailbox, octets=40, messages=1)
    with pytest.raises(QuotaExceeded, match=r"small@acme\.test has no room for 1 octets more"):
        quota.charge(mailbox, octets=1, messages=1)
    assert counters(mailbox) == (100, 3)


def test_without_a_quota_there_is_no_limit(acme: Customer) -> None:
    quota.charge(acme.mailbox, octets=2**50, messages=1)
    assert counters(acme.mailbox) == (2**50, 1)


def test_what_is_refunded_can_be_used_again(acme: Customer, globex: Customer) -> None:
    mailbox = acme.add("small", quota_octets=100)
    quota.charge(globex.mailbox, octets=7, messages=1)
    quota.charge(mailbox, octets=100, messages=2)
    quota.refund(mailbox, octets=30, messages=1)
    assert counters(mailbox) == (70, 1)
    quota.charge(mailbox, octets=30, messages=1)
    assert counters(globex.mailbox) == (7, 1)


def test_of_many_only_one_can_take_the_last_room(acme: Customer) -> None:
    mailbox = acme.add("small", quota_octets=100)
    together = Barrier(4)

    def charge(_: int) -> bool:
        together.wait()
        try:
            quota.charge(mailbox, octets=60, messages=1)
        except QuotaExceeded:
            return False
        else:
            return True
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(charge, range(4))) == [False, False, False, True]
    assert counters(mailbox) == (60, 1)
