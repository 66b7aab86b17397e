from importlib import import_module

from django.db import migrations

# Whoever has definer's rights asks himself what row-level security would have asked. The role is the caller's also there.
SCOPE = """
CREATE FUNCTION mailhost_check_scope(of_tenant bigint, of_reseller bigint) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('role') = 'mailhost_web'
        AND current_setting('mailhost.host', true) IS DISTINCT FROM 'on'
        AND (of_tenant = ANY (nullif(current_setting('mailhost.tenants', true), '')::bigint[])) IS NOT TRUE
        AND (of_reseller = nullif(current_setting('mailhost.reseller', true), '')::bigint) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'it is outside of the scope' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$
"""

# First the tenant's lock, as the trigger takes it: nobody gives the tenant to another reseller meanwhile.
CHARGE = """
CREATE OR REPLACE FUNCTION mailhost_charge(
    of_tenant bigint, of_domain bigint, more_domains bigint, more_mailboxes bigint, more_aliases bigint
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    allowance record;
    charged bigint[] := '{}';
BEGIN
    PERFORM mailhost_check_scope(of_tenant, NULL);
    PERFORM pg_advisory_xact_lock_shared(1835100526, (of_tenant & 2147483647)::int);
    FOR allowance IN
        SELECT counted.*,
            CASE WHEN counted.domain_id IS NOT NULL THEN 'domain'
                WHEN counted.tenant_id IS NOT NULL THEN 'tenant' ELSE 'reseller' END AS whose
        FROM accounts_allowance counted
        WHERE (counted.tenant_id = of_tenant AND (counted.domain_id IS NULL OR counted.domain_id = of_domain))
            OR counted.reseller_id = (SELECT reseller_id FROM accounts_tenant WHERE id = of_tenant)
        ORDER BY counted.reseller_id NULLS LAST, counted.domain_id NULLS FIRST
        FOR NO KEY UPDATE
    LOOP
        IF more_domains > 0 AND allowance.domain_id IS NULL
            AND allowance.domains + more_domains > allowance.max_domains THEN
            RETURN allowance.whose || ' domains ' || allowance.max_domains;
        ELSIF more_mailboxes > 0 AND allowance.mailboxes + more_mailboxes > allowance.max_mailboxes THEN
            RETURN allowance.whose || ' mailboxes ' || allowance.max_mailboxes;
        ELSIF more_aliases > 0 AND allowance.aliases + more_aliases > allowance.max_aliases THEN
            RETURN allowance.whose || ' aliases ' || allowance.max_aliases;
        END IF;
        charged := charged || allowance.id;
    END LOOP;
    UPDATE accounts_allowance
    SET domains = domains + CASE WHEN domain_id IS NULL THEN more_domains ELSE 0 END,
        mailboxes = mailboxes + more_mailboxes, aliases = aliases + more_aliases
    WHERE id = ANY (charged);
    RETURN NULL;
END $$
"""

COUNT = """
CREATE OR REPLACE FUNCTION mailhost_count_octets() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    more bigint := CASE WHEN NEW.closed_at IS NULL THEN NEW.used_octets ELSE 0 END
        - CASE WHEN OLD.closed_at IS NULL THEN OLD.used_octets ELSE 0 END;
    allowance record;
BEGIN
    IF more = 0 THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1835100526, (NEW.tenant_id & 2147483647)::int);
    FOR allowance IN
        SELECT counted.id, counted.octets, counted.max_octets
        FROM accounts_allowance counted
        WHERE counted.max_octets IS NOT NULL AND (
            (counted.tenant_id = NEW.tenant_id AND (counted.domain_id IS NULL OR counted.domain_id = NEW.domain_id))
            OR counted.reseller_id = (SELECT reseller_id FROM accounts_tenant WHERE id = NEW.tenant_id)
        )
        ORDER BY counted.reseller_id NULLS LAST, counted.domain_id NULLS FIRST
        FOR NO KEY UPDATE
    LOOP
        IF more > 0 AND allowance.octets + more > allowance.max_octets
            AND current_setting('mailhost.beyond_limits', true) IS DISTINCT FROM 'on' THEN
            RAISE EXCEPTION 'no room for % octets more', more USING ERRCODE = 'MH001';
        END IF;
        UPDATE accounts_allowance SET octets = octets + more WHERE id = allowance.id;
    END LOOP;
    RETURN NULL;
END $$
"""

HOLD = """
CREATE OR REPLACE FUNCTION mailhost_hold_octets(of_reseller bigint, of_tenant bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM mailhost_check_scope(of_tenant, of_reseller);
    PERFORM pg_advisory_xact_lock(1835100526, (id & 2147483647)::int)
    FROM (
        SELECT id FROM accounts_tenant WHERE id = of_tenant OR reseller_id = of_reseller ORDER BY id
    ) tenant;
END $$;
CREATE OR REPLACE FUNCTION mailhost_used_octets(of_reseller bigint, of_tenant bigint, of_domain bigint) RETURNS numeric
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM mailhost_check_scope(of_tenant, of_reseller);
    RETURN (
        SELECT coalesce(sum(used_octets), 0) FROM accounts_mailbox
        WHERE closed_at IS NULL AND CASE
            WHEN of_domain IS NOT NULL THEN domain_id = of_domain AND tenant_id = of_tenant
            WHEN of_tenant IS NOT NULL THEN tenant_id = of_tenant
            ELSE tenant_id IN (SELECT id FROM accounts_tenant WHERE reseller_id = of_reseller)
        END
    );
END $$
"""

EMIT = """
CREATE OR REPLACE FUNCTION mailhost_emit(of_tenant bigint, kinds text[], domain_names text[], payloads jsonb[])
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    hooks bigint[] := array(
        SELECT hook.id FROM accounts_webhook hook
        WHERE hook.enabled AND (hook.events = '{}' OR hook.events::text[] && kinds) AND (
            hook.tenant_id = of_tenant
            OR (hook.tenant_id IS NULL AND hook.reseller_id IS NULL)
            OR (hook.tenant_id IS NULL
                AND hook.reseller_id = (SELECT reseller_id FROM accounts_tenant WHERE id = of_tenant))
        )
        FOR KEY SHARE OF hook  -- until we are done nobody removes it, which would undo all that we do
    );
    told bigint;
BEGIN
    PERFORM mailhost_check_scope(of_tenant, NULL);
    IF hooks = '{}' THEN
        RETURN 0;
    END IF;
    WITH happened AS MATERIALIZED (
        SELECT gen_random_uuid() AS id, kind, domain_name, payload, number
        FROM unnest(kinds, domain_names, payloads) WITH ORDINALITY AS given (kind, domain_name, payload, number)
    ), wanted AS MATERIALIZED (
        SELECT happened.id AS event_id, hook.id AS webhook_id, number
        FROM accounts_webhook hook JOIN happened ON hook.events = '{}' OR happened.kind = ANY (hook.events)
        WHERE hook.id = ANY (hooks)
    ), event AS (
        INSERT INTO accounts_event (id, tenant_id, kind, domain_name, payload)
        SELECT id, of_tenant, kind, domain_name, payload FROM happened
        WHERE id IN (SELECT event_id FROM wanted)
    ), delivery AS (
        INSERT INTO accounts_webhookdelivery (tenant_id, webhook_id, event_id, state, attempts, last_error)
        SELECT of_tenant, webhook_id, event_id, 'pending', 0, '' FROM wanted ORDER BY number
        RETURNING 1
    )
    SELECT count(*) INTO told FROM delivery;
    RETURN told;
END $$
"""


def _before(name: str, function: str) -> str:
    sql: str = getattr(import_module(f"accounts.migrations.{name}"), function)
    return sql.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


_COUNTED_BEFORE = import_module("accounts.migrations.0021_beyond_limits")


class Migration(migrations.Migration):
    """Allowances are locked from the widest to the narrowest, and nobody counts or tells for tenants he does not see."""

    dependencies = [("accounts", "0022_same_tenant_deferrable")]

    operations = [
        migrations.RunSQL(SCOPE, "DROP FUNCTION mailhost_check_scope(bigint, bigint)"),
        migrations.RunSQL(CHARGE, _before("0017_limits", "CHARGE")),
        migrations.RunSQL(COUNT, _COUNTED_BEFORE.COUNT.format(beyond=_COUNTED_BEFORE.BEYOND)),
        migrations.RunSQL(HOLD, _before("0017_limits", "HOLD")),
        migrations.RunSQL(EMIT, _before("0018_emit", "EMIT")),
    ]
