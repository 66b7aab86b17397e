"""Indexes on tables that are in use: nobody waits, and an attempt that was interrupted can be made again.

PostgreSQL makes and drops such an index in several transactions. Whoever interrupts it leaves an invalid one, which
each write pays for and no query uses; it has the name, so that Django's own operations would fail for ever.
"""

from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently, NotInTransactionMixin, RemoveIndexConcurrently
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import AddConstraint


class AddIndex(AddIndexConcurrently):
    """Make an index, unless an attempt before was interrupted only after it."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Make it."""
        if not _is_there(schema_editor, self.index.name):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class RemoveIndex(RemoveIndexConcurrently):
    """Drop an index; that can be repeated anyway, but not the way back."""

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Make it again."""
        if not _is_there(schema_editor, self.name):
            super().database_backwards(app_label, schema_editor, from_state, to_state)


class AddUnique(NotInTransactionMixin, AddConstraint):
    """Make the unique index that a constraint with a condition is, as `AddIndex` makes one."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Make it."""
        self._ensure_not_in_transaction(schema_editor)
        if not _is_there(schema_editor, self.constraint.name):
            model = to_state.apps.get_model(app_label, self.model_name)
            statement = str(self.constraint.create_sql(model, schema_editor))
            schema_editor.execute(statement.replace("CREATE UNIQUE INDEX", "CREATE UNIQUE INDEX CONCURRENTLY", 1))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Drop it."""
        self._ensure_not_in_transaction(schema_editor)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.constraint.name)}")


def _is_there(schema_editor: BaseDatabaseSchemaEditor, name: str) -> bool:
    """Whether an index exists. Drops it if it is what an interruption left."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (name,))
        [is_valid] = cursor.fetchone() or [None]
    if is_valid is False:
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(name)}")
    return bool(is_valid)
