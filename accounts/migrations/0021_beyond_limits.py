from django.db import migrations

# As before, but for one line: what tells somebody that there is no room must find room itself (mailstore.notices).
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
        ORDER BY counted.domain_id NULLS LAST, counted.tenant_id NULLS LAST
        FOR NO KEY UPDATE
    LOOP
        IF more > 0 AND allowance.octets + more > allowance.max_octets{beyond} THEN
            RAISE EXCEPTION 'no room for % octets more', more USING ERRCODE = 'MH001';
        END IF;
        UPDATE accounts_allowance SET octets = octets + more WHERE id = allowance.id;
    END LOOP;
    RETURN NULL;
END $$
"""
BEYOND = "\n            AND current_setting('mailhost.beyond_limits', true) IS DISTINCT FROM 'on'"


class Migration(migrations.Migration):
    """A notice that a limit is reached is stored beyond it."""

    dependencies = [("accounts", "0020_closed_at")]

    operations = [
        migrations.RunSQL(COUNT.format(beyond=BEYOND), COUNT.format(beyond="")),
    ]
