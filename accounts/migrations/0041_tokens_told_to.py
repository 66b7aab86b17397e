from django.db import migrations

# Whoever made or rotated a token, and if a token did, whoever made or rotated that. Rows of commands have no role.
_TELL = """
WITH RECURSIVE told AS (
    SELECT token.id, event.role, event.token_id
    FROM accounts_apitoken token
    JOIN accounts_auditevent event ON event.target_kind = 'apitoken' AND event.target_id = token.id
    WHERE event.action IN ('token.created', 'token.rotated') AND event.role <> ''
), known AS (
    SELECT id, role, token_id FROM told
    UNION
    SELECT known.id, told.role, told.token_id FROM known JOIN told ON told.id = known.token_id
)
UPDATE accounts_apitoken token
SET told_to = ARRAY(SELECT DISTINCT role FROM known WHERE known.id = token.id ORDER BY role)
WHERE told_to = '{}' AND EXISTS (SELECT FROM known WHERE known.id = token.id)
"""


class Migration(migrations.Migration):
    """Of the tokens that there are, the audit says who was told their texts."""

    dependencies = [("accounts", "0040_token_told_to")]

    operations = [migrations.RunSQL(_TELL, migrations.RunSQL.noop)]
