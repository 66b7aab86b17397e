"""Composite foreign keys, which Django's models cannot express."""

from collections.abc import Iterable

from django.db import migrations

ForeignKey = tuple[str, str, str, str]
"""A table, its columns, the referenced table and its columns."""


def add(foreign_keys: Iterable[ForeignKey]) -> list[migrations.RunSQL]:
    """The operations that add them. They are asked at once, unless a transaction puts it off (`mailstore.moving`)."""
    return [
        migrations.RunSQL(
            f"ALTER TABLE {table} ADD CONSTRAINT {_name(table, columns)}"
            f" FOREIGN KEY ({columns}) REFERENCES {target} ({keys}) DEFERRABLE",
            f"ALTER TABLE {table} DROP CONSTRAINT {_name(table, columns)}",
        )
        for table, columns, target, keys in foreign_keys
    ]


def make_deferrable(foreign_keys: Iterable[tuple[str, str]]) -> list[migrations.RunSQL]:
    """The operations after which those that were added otherwise can be put off, too: no row is looked at.

    Each for itself, outside of a transaction: each table is locked for a moment, and nobody waits for two.
    """
    return [
        migrations.RunSQL(
            f"ALTER TABLE {table} ALTER CONSTRAINT {_name(table, columns)} DEFERRABLE", migrations.RunSQL.noop
        )
        for table, columns in foreign_keys
    ]


def _name(table: str, columns: str) -> str:
    return f"{table}_{columns.split(', ')[-1]}_same_tenant"
