from django.db import migrations

# Definer's rights: who adds a mailbox need not see the allowance of his tenant's reseller.
CHARGE = """
CREATE FUNCTION mailhost_charge(
    of_tenant bigint, of_domain bigint, more_domains bigint, more_mailboxes bigint, more_aliases bigint
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    allowance record;
    charged bigint[] := '{}';
BEGIN
    FOR allowance IN
        SELECT counted.*,
            CASE WHEN counted.domain_id IS NOT NULL THEN 'domain'
                WHEN counted.tenant_id IS NOT NULL THEN 'tenant' ELSE 'reseller' END AS whose
        FROM accounts_allowance counted
        WHERE counted.domain_id = of_domain
            OR (counted.tenant_id = of_tenant AND counted.domain_id IS NULL)
            OR counted.reseller_id = (SELECT reseller_id FROM accounts_tenant WHERE id = of_tenant)
        ORDER BY counted.domain_id NULLS LAST, counted.tenant_id NULLS LAST
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

# Only while there is a limit on octets: else a tenant's deliveries would wait for one row. Whoever sets one holds the
# tenant's lock alone meanwhile, so it begins with an exact sum.
OCTETS = """
CREATE FUNCTION mailhost_count_octets() RETURNS trigger
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
        IF more > 0 AND allowance.octets + more > allowance.max_octets THEN
            RAISE EXCEPTION 'no room for % octets more', more USING ERRCODE = 'MH001';
        END IF;
        UPDATE accounts_allowance SET octets = octets + more WHERE id = allowance.id;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER count_octets AFTER UPDATE OF used_octets, closed_at ON accounts_mailbox
    FOR EACH ROW WHEN (
        OLD.used_octets IS DISTINCT FROM NEW.used_octets OR (OLD.closed_at IS NULL) <> (NEW.closed_at IS NULL)
    )
    EXECUTE FUNCTION mailhost_count_octets()
"""

HOLD = """
CREATE FUNCTION mailhost_hold_octets(of_reseller bigint, of_tenant bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT pg_advisory_xact_lock(1835100526, (id & 2147483647)::int)
    FROM (
        SELECT id FROM accounts_tenant WHERE id = of_tenant OR reseller_id = of_reseller ORDER BY id
    ) tenant
$$;
CREATE FUNCTION mailhost_used_octets(of_reseller bigint, of_tenant bigint, of_domain bigint) RETURNS numeric
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(sum(used_octets), 0) FROM accounts_mailbox
    WHERE closed_at IS NULL AND CASE
        WHEN of_domain IS NOT NULL THEN domain_id = of_domain
        WHEN of_tenant IS NOT NULL THEN tenant_id = of_tenant
        ELSE tenant_id IN (SELECT id FROM accounts_tenant WHERE reseller_id = of_reseller)
    END
$$
"""


class Migration(migrations.Migration):
    """Limits are counted and kept by the database."""

    dependencies = [("accounts", "0016_same_tenant_more")]

    operations = [
        migrations.RunSQL(CHARGE, "DROP FUNCTION mailhost_charge(bigint, bigint, bigint, bigint, bigint)"),
        migrations.RunSQL(
            OCTETS,
            "DROP TRIGGER count_octets ON accounts_mailbox; DROP FUNCTION mailhost_count_octets()",
        ),
        migrations.RunSQL(
            HOLD,
            "DROP FUNCTION mailhost_hold_octets(bigint, bigint);"
            " DROP FUNCTION mailhost_used_octets(bigint, bigint, bigint)",
        ),
        migrations.RunSQL(
            "CREATE INDEX allowance_of_octets ON accounts_allowance (tenant_id, reseller_id) WHERE max_octets IS NOT NULL",
            "DROP INDEX allowance_of_octets",
        ),
    ]
