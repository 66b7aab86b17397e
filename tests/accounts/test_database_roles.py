"""What a process of listeners can do to the database if somebody else takes it over: deliver mail, and no more."""

from collections.abc import Iterator

import psycopg
import pytest

from accounts.database_roles import LISTENER
from mailstore import database
from tests.fixtures import Customer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def listener(acme: Customer) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(database.conninfo(role=LISTENER), autocommit=True) as connection:
        yield connection


def test_it_sees_who_has_mail(listener: "psycopg.Connection[tuple[object, ...]]") -> None:
    assert listener.execute("SELECT address FROM accounts_mailbox").fetchall() == [("an@acme.test",)]
    assert listener.execute("UPDATE accounts_user SET password = password").rowcount == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_user SET email = 'x'",
        "UPDATE accounts_user SET is_superuser = true, role = 'operator'",
        "INSERT INTO accounts_user (password) VALUES ('')",
        "DELETE FROM accounts_user",
        "SELECT FROM accounts_apitoken",
        "INSERT INTO accounts_apitoken (tenant_id) VALUES (1)",
        "INSERT INTO accounts_apppassword (tenant_id) VALUES (1)",
        "UPDATE accounts_apppassword SET digest = ''",
        "SELECT FROM accounts_webhook",
        "SELECT FROM accounts_auditevent",
        "SELECT FROM django_session",
        "SELECT FROM accounts_websession",
        "SELECT FROM accounts_authenticatorapp",
        "SELECT FROM accounts_passkey",
        "DELETE FROM accounts_passkey",
        "INSERT INTO accounts_recoverycode (user_id, digest) VALUES (1, '')",
        "UPDATE accounts_mailbox SET address = 'x'",
        "UPDATE accounts_mailbox SET quota_octets = NULL",
        "UPDATE accounts_mailbox SET state = 'active'",
        "INSERT INTO accounts_alias (address) VALUES ('x')",
        "UPDATE accounts_aliastarget SET address = 'x'",
        "UPDATE accounts_domain SET tenant_id = 1",
        "UPDATE accounts_allowance SET max_octets = NULL",
        "SELECT FROM mailstore_forward",
        "UPDATE mailstore_forward SET recipient = 'x'",
        "DELETE FROM mailstore_forwardledger",
        "DELETE FROM mailstore_refusal",
        "DELETE FROM accounts_failedlogin",
        "SELECT FROM mailstore_importjob",
        "TRUNCATE mailstore_message",
        "CREATE TABLE x ()",
    ],
)
def test_it_cannot(listener: "psycopg.Connection[tuple[object, ...]]", statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        listener.execute(statement)
