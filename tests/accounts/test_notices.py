"""What listeners are told when mailboxes change."""

from collections.abc import Iterator

import psycopg
import pytest
from django.db import transaction

from accounts import notices
from mailstore import database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def listening(transactional_db: None) -> Iterator[psycopg.Connection]:
    """A connection that hears what is said."""
    with psycopg.connect(database.conninfo(), autocommit=True) as connection:
        connection.execute(f"LISTEN {notices.CHANNEL}")
        yield connection


def heard(connection: psycopg.Connection) -> list[str]:
    return [notice.payload for notice in connection.notifies(timeout=0.2)]


def test_a_notice_is_given_when_the_change_commits(listening: psycopg.Connection) -> None:
    with transaction.atomic():
        notices.mailboxes_changed([7, 9, 7])
        assert heard(listening) == []
    assert sorted(heard(listening)) == ["7", "9"]


def test_no_notice_is_given_of_what_did_not_happen(listening: psycopg.Connection) -> None:
    with transaction.atomic():
        notices.mailboxes_changed([7])
        transaction.set_rollback(True)
    notices.mailboxes_changed([])
    assert heard(listening) == []


def test_many_are_not_named_one_by_one(listening: psycopg.Connection) -> None:
    notices.mailboxes_changed(range(1, 5000))
    assert heard(listening) == [notices.EVERY]
