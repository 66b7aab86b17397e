"""Finding drift: where what the store has counted and measured is not what it holds."""

from collections.abc import Iterator
from typing import Final

from django.db import connection, transaction

_CHECKS: Final = (
    (
        "mailbox {} ({}): counts {} messages of {} octets, has {} of {}",
        """
        SELECT mailbox.id, mailbox.address, mailbox.message_count, mailbox.used_octets,
            coalesce(present.messages, 0), coalesce(present.octets, 0)
        FROM accounts_mailbox mailbox LEFT JOIN (
            SELECT mailbox_id, count(*) AS messages, sum(octets) AS octets
            FROM mailstore_message WHERE expunged_at IS NULL GROUP BY mailbox_id
        ) present ON present.mailbox_id = mailbox.id
        WHERE (mailbox.message_count, mailbox.used_octets)
            <> (coalesce(present.messages, 0), coalesce(present.octets, 0))
        """,
    ),
    (
        "mailbox {} ({}): its next uid is {}, and it has given out {}",
        """
        SELECT mailbox.id, mailbox.address, mailbox.next_uid, last.uid
        FROM accounts_mailbox mailbox
        JOIN (SELECT mailbox_id, max(uid) AS uid FROM mailstore_message GROUP BY mailbox_id) last
            ON last.mailbox_id = mailbox.id
        WHERE last.uid >= mailbox.next_uid
        """,
    ),
    (
        "message {}: has {} octets by its row, {} by its trace and content",
        """
        SELECT message.id, message.octets, octet_length(message.trace) + content.octets
        FROM mailstore_message message JOIN mailstore_content content ON content.id = message.content_id
        WHERE message.octets <> octet_length(message.trace) + content.octets
        """,
    ),
    (
        "message {}: its epoch is {}, later than the store's, {}",
        """
        SELECT message.id, message.epoch, store.epoch
        FROM mailstore_message message, (SELECT coalesce((SELECT epoch FROM mailstore_store), 1) AS epoch) store
        WHERE message.epoch > store.epoch
        """,
    ),
    (
        "content {}: has {} octets by its row, {} are stored, in {} chunks",
        """
        SELECT content.id, content.octets,
            coalesce(octet_length(content.body), 0) + coalesce(chunks.octets, 0), coalesce(chunks.number, 0)
        FROM mailstore_content content LEFT JOIN (
            SELECT content_id, count(*) AS number, sum(octet_length(octets)) AS octets
            FROM mailstore_contentchunk GROUP BY content_id
        ) chunks ON chunks.content_id = content.id
        WHERE content.octets <> coalesce(octet_length(content.body), 0) + coalesce(chunks.octets, 0)
            OR (content.body IS NULL) = (chunks.number IS NULL)
        """,
    ),
    (
        "content {}: its {} chunks are numbered from {} to {}",
        """
        SELECT content_id, count(*), min(number), max(number)
        FROM mailstore_contentchunk GROUP BY content_id
        HAVING min(number) <> 0 OR max(number) <> count(*) - 1
        """,
    ),
    (
        "content {}: has {} octets, and a header of {}",
        "SELECT id, octets, header_octets FROM mailstore_content WHERE header_octets NOT BETWEEN 0 AND octets",
    ),
    (
        "content {}: no message has it (`manage.py purge` removes it)",
        """
        SELECT id FROM mailstore_content content
        WHERE NOT EXISTS (SELECT FROM mailstore_message WHERE content_id = content.id)
            AND NOT EXISTS (SELECT FROM mailstore_forward WHERE content_id = content.id)
        """,
    ),
    (
        "{} {}: counts {} domains, mailboxes, aliases and octets, has {}",
        """
        WITH one AS (
            SELECT domain.id, domain.tenant_id, tenant.reseller_id, (domain.closed_at IS NULL)::int AS domains,
                coalesce(box.mailboxes, 0) AS mailboxes, coalesce(alias.aliases, 0) AS aliases,
                coalesce(box.octets, 0) AS octets
            FROM accounts_domain domain JOIN accounts_tenant tenant ON tenant.id = domain.tenant_id
            LEFT JOIN (
                SELECT domain_id, count(*) AS mailboxes, sum(used_octets) AS octets
                FROM accounts_mailbox WHERE closed_at IS NULL GROUP BY domain_id
            ) box ON box.domain_id = domain.id
            LEFT JOIN (
                SELECT domain_id, count(*) AS aliases FROM accounts_alias GROUP BY domain_id
            ) alias ON alias.domain_id = domain.id
        ), present AS (
            SELECT 'domain' AS kind, id, 0::bigint AS domains, mailboxes, aliases, octets FROM one
            UNION ALL
            SELECT 'tenant', tenant_id, sum(domains), sum(mailboxes), sum(aliases), sum(octets)
            FROM one GROUP BY tenant_id
            UNION ALL
            SELECT 'reseller', reseller_id, sum(domains), sum(mailboxes), sum(aliases), sum(octets)
            FROM one WHERE reseller_id IS NOT NULL GROUP BY reseller_id
        ), counted AS (
            SELECT coalesce(domain_id, tenant_id, reseller_id) AS id, domains, mailboxes, aliases, octets, max_octets,
                CASE WHEN domain_id IS NOT NULL THEN 'domain' WHEN tenant_id IS NOT NULL THEN 'tenant'
                    ELSE 'reseller' END AS kind
            FROM accounts_allowance
        ), compared AS (
            SELECT kind, id,
                ARRAY[counted.domains, counted.mailboxes, counted.aliases, counted.octets]::bigint[] AS counts,
                ARRAY[
                    coalesce(present.domains, 0), coalesce(present.mailboxes, 0), coalesce(present.aliases, 0),
                    CASE WHEN max_octets IS NULL THEN counted.octets ELSE coalesce(present.octets, 0) END
                ]::bigint[] AS has
            FROM counted LEFT JOIN present USING (kind, id)
        )
        SELECT kind, id, counts, has FROM compared WHERE counts <> has
        """,
    ),
    (
        "own copy of message {} for device {} in mailbox {}: {}",
        """
        SELECT copy.message_id, copy.app_password_id, copy.mailbox_id, CASE
            WHEN message.id IS NULL THEN 'the message is gone'
            WHEN message.mailbox_id <> copy.mailbox_id THEN 'the message is of mailbox ' || message.mailbox_id
            WHEN app.id IS NULL THEN 'the device is gone'
            ELSE 'the device is of mailbox ' || app.mailbox_id END
        FROM mailstore_owncopy copy LEFT JOIN mailstore_message message ON message.id = copy.message_id
            LEFT JOIN accounts_apppassword app ON app.id = copy.app_password_id
        WHERE (message.mailbox_id = copy.mailbox_id AND app.mailbox_id = copy.mailbox_id) IS NOT TRUE
        """,
    ),
    (
        "message {}: is in the maildrop of mailbox {}, and every device with an own copy has removed it",
        # Of a device that has just expired the purge has yet to take note. Where all have, nothing leaves the maildrop.
        """
        WITH device AS (
            SELECT app.mailbox_id, app.id, (app.expires_at <= now()) IS NOT TRUE AS is_waited_for
            FROM accounts_apppassword app
                JOIN accounts_mailbox mailbox ON mailbox.id = app.mailbox_id
            WHERE app.own_copy AND app.revoked_at IS NULL AND mailbox.closed_at IS NULL
                AND (app.expires_at IS NULL OR app.expires_at > now() - interval '1 day')
        ), devices AS (
            SELECT mailbox_id, count(*) AS number FROM device GROUP BY mailbox_id
        )
        SELECT message.id, message.mailbox_id
        FROM devices JOIN device USING (mailbox_id)
            JOIN mailstore_owncopy copy ON copy.app_password_id = device.id AND copy.removed_at IS NOT NULL
            JOIN mailstore_message message ON message.id = copy.message_id AND message.expunged_at IS NULL
        GROUP BY message.id, message.mailbox_id, devices.number
        HAVING count(*) = devices.number AND bool_or(device.is_waited_for)
        """,
    ),
    (
        "delivery ledger of mailbox {}: a digest of {} octets, delivered at {}",
        """
        SELECT mailbox_id, octet_length(digest), delivered_at
        FROM mailstore_deliveryledger WHERE octet_length(digest) <> 32 OR delivered_at > clock_timestamp()
        """,
    ),
)


def find() -> Iterator[str]:
    """A line for each thing that is not as it should be: none.

    All is seen as it was at one moment, so it can run beside deliveries and sessions. Lengths are taken without
    reading contents. Not to be called in a transaction.
    """
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for line, statement in _CHECKS:
            with connection.chunked_cursor() as cursor:  # of the server: rows come as they are needed
                cursor.execute(statement)
                for row in cursor:
                    yield line.format(*row)
