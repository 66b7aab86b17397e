"""Keeping which logins failed, hour by hour, for whoever asks why somebody cannot sign in.

What is kept is bounded, however many guess: of a mailbox or a login `MOST` rows an hour, of addresses that nobody has
`MOST_UNKNOWN` for each domain; what comes beyond is added up under no network. Never anything of a password, and an
address that nobody has only where its domain is hosted here and was typed: a bare name may be a password in the wrong
field.
"""

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from accounts import audit, scope, throttle
from accounts.models import Domain, FailedLogin, KnownNetwork, Mailbox, User

Client = IPv4Address | IPv6Address | None

MOST: Final = 20
MOST_UNKNOWN: Final = 100

KNOWN_FOR: Final = timedelta(days=30)
"""After a login so long, its network is only ever delayed at that mailbox."""
_LET_IN_FOR: Final = timedelta(days=1)

BARRED: Final = "barred"
"""A reason that is looked up when it is written: the mailbox's state, POP3 is off, or the network is not allowed."""


class Failure(NamedTuple):
    """What is counted together."""

    mailbox_id: int | None
    user_id: int | None  # of a login without a mailbox
    address: str  # that nobody has, in normal form; empty if it is not to be kept
    domain: str  # of that address
    reason: str
    through: str
    network: str
    app_password_id: int | None = None


def failure(
    address: str,
    *,
    mailbox_id: int | None,
    user_id: int | None = None,
    reason: str,
    through: str,
    client: Client,
    app_password_id: int | None = None,
    typed_whole: bool,
) -> Failure:
    """What to note of a login that failed; `typed_whole` says whether the name had a domain of its own."""
    nobody = mailbox_id is None and user_id is None
    return Failure(
        mailbox_id,
        user_id if mailbox_id is None else None,
        address if nobody and typed_whole else "",
        address.rpartition("@")[2] if nobody else "",
        reason,
        through,
        throttle.near(client),
        app_password_id,
    )


def subject(row: Mailbox | User | Domain) -> str:
    """`FailedLogin.subject` of what failed at a mailbox, by a login without one, or at a domain's unknown addresses."""
    kind = "login" if isinstance(row, User) else row._meta.model_name
    return f"{kind} {row.pk}"


def reason(*, known: bool, app_password_is: str | None) -> str:
    """Why a password was refused: of an address that somebody has, and an app password that is not good for that."""
    if not known:
        return FailedLogin.Reason.UNKNOWN
    match app_password_is:  # what `app_passwords.why_not` says
        case None:
            return FailedLogin.Reason.PASSWORD
        case "revoked":
            return FailedLogin.Reason.REVOKED
        case "expired":
            return FailedLogin.Reason.EXPIRED
        case "not allowed from there":
            return FailedLogin.Reason.NOT_FROM_THERE
    return FailedLogin.Reason.NOT_MEANT


def write(failed: Failure, client: Client) -> None:
    """Write one at once, whatever exists for whoever acts."""
    with scope.whole_host(), connection.cursor() as cursor:
        cursor.execute(WRITE, parameters({failed: 1}, {failed: client}))


def let_in(mailbox: Mailbox, client: Client, *, redis_url: str) -> None:
    """Look at passwords from a client's network again that were refused unseen, at this mailbox alone.

    For a day the network counts as one that signed in to it: attempts from there are delayed, and not refused. What
    fails at the mailbox is counted anew. Others' mailboxes are guarded from the network as before. Raises
    `throttle.Away`: then only the network is let in.
    """
    signed_in = timezone.now() - KNOWN_FOR + _LET_IN_FOR
    with transaction.atomic():
        network, made = KnownNetwork.objects.get_or_create(
            mailbox=mailbox,
            network=throttle.near(client),
            defaults={"tenant_id": mailbox.tenant_id, "last_login_at": signed_in},
        )
        if not made:
            KnownNetwork.objects.filter(pk=network.pk, last_login_at__lt=signed_in).update(last_login_at=signed_in)
        audit.record("mailbox.let_in", mailbox)
    throttle.forget(redis_url=redis_url, address=mailbox.address, client=client)


def parameters(counts: Mapping[Failure, int], clients: Mapping[Failure, Client]) -> dict[str, Any]:
    """What `WRITE` takes: how often each failed, and from where the last time."""
    columns = zip(*counts, strict=True)
    return {
        **{name: list(column) for name, column in zip(Failure._fields, columns, strict=True)},
        "count": list(counts.values()),
        "client": [str(clients[each]) if clients[each] else None for each in counts],
    }


WRITE: Final = f"""
WITH noted AS (
    SELECT number, count, through, network, app_password_id, client,
        mailbox.id AS mailbox_id, login.id AS user_id, coalesce(mailbox.domain_id, domain.id) AS domain_id,
        coalesce(mailbox.tenant_id, login.tenant_id, domain.tenant_id) AS tenant_id, login.reseller_id,
        CASE WHEN domain.id IS NULL THEN '' ELSE asked.address END AS address,
        CASE WHEN reason <> '{BARRED}' THEN reason
            WHEN mailbox.state NOT IN ('active', 'no-receive') THEN '{FailedLogin.Reason.STATE.value}'
            WHEN NOT mailbox.pop3_enabled THEN '{FailedLogin.Reason.NO_POP3.value}'
            ELSE '{FailedLogin.Reason.NETWORK.value}' END AS reason,
        CASE WHEN mailbox.id IS NOT NULL THEN 'mailbox ' || mailbox.id
            WHEN login.id IS NOT NULL THEN 'login ' || login.id
            WHEN domain.id IS NOT NULL THEN 'domain ' || domain.id ELSE '' END AS subject,
        date_trunc('hour', now(), 'UTC') AS hour
    FROM unnest(
        %(mailbox_id)s::bigint[], %(user_id)s::bigint[], %(address)s::text[], %(domain)s::text[],
        %(reason)s::text[], %(through)s::text[], %(network)s::text[], %(app_password_id)s::bigint[],
        %(count)s::bigint[], %(client)s::inet[]
    ) WITH ORDINALITY AS asked (
        mailbox_id, user_id, address, domain, reason, through, network, app_password_id, count, client, number
    )
    LEFT JOIN accounts_mailbox mailbox ON mailbox.id = asked.mailbox_id
    LEFT JOIN accounts_user login ON login.id = asked.user_id
    LEFT JOIN accounts_domain domain ON domain.name = asked.domain
    WHERE (asked.mailbox_id IS NULL OR mailbox.id IS NOT NULL) AND (asked.user_id IS NULL OR login.id IS NOT NULL)
), looked_up AS (
    SELECT noted.*,
        (SELECT count(*) FROM accounts_failedlogin WHERE subject = noted.subject AND hour = noted.hour) AS rows,
        EXISTS (
            SELECT FROM accounts_failedlogin kept
            WHERE (kept.subject, kept.hour, kept.reason, kept.through, kept.network, kept.address)
                    = (noted.subject, noted.hour, noted.reason, noted.through, noted.network, noted.address)
                AND kept.app_password_id IS NOT DISTINCT FROM noted.app_password_id
        ) AS is_kept
    FROM noted
), bounded AS (
    SELECT looked_up.*, is_kept OR rows + row_number() OVER (PARTITION BY subject, is_kept ORDER BY number)
        <= CASE WHEN coalesce(mailbox_id, user_id) IS NULL THEN {MOST_UNKNOWN} ELSE {MOST} END AS has_room
    FROM looked_up
), told AS (
    SELECT subject, hour, tenant_id, reseller_id, domain_id, mailbox_id, user_id, reason, through, count,
        CASE WHEN has_room THEN network ELSE '' END AS network, CASE WHEN has_room THEN address ELSE '' END AS address,
        CASE WHEN has_room THEN app_password_id END AS app_password_id, CASE WHEN has_room THEN client END AS client
    FROM bounded
)
INSERT INTO accounts_failedlogin (
    subject, hour, tenant_id, reseller_id, domain_id, mailbox_id, user_id, reason, through, network, address,
    app_password_id, client_address, count, first_at, last_at
)
SELECT subject, hour, tenant_id, reseller_id, domain_id, mailbox_id, user_id, reason, through, network, address,
    app_password_id, max(client), sum(count), now(), now()
FROM told
GROUP BY subject, hour, tenant_id, reseller_id, domain_id, mailbox_id, user_id, reason, through, network, address,
    app_password_id
ORDER BY subject, reason, through, network, address, app_password_id
ON CONFLICT (subject, hour, reason, through, network, address, app_password_id) DO UPDATE
SET count = accounts_failedlogin.count + EXCLUDED.count, last_at = now(), client_address = EXCLUDED.client_address
"""
"""One statement for the connections of Django and of `mailstore.database` alike."""
