"""Composite foreign keys, which Django's models cannot express."""

from collections.abc import Iterable

from django.db import migrations


def add(foreign_keys: Iterable[tuple[str, str, str, str]]) -> list[migrations.RunSQL]:
    """The operations that add them: each table, columns, referenced table and its columns."""
    return [
        migrations.RunSQL(
            f"ALTER TABLE {table} ADD CONSTRAINT {_name(table, columns)}"
            f" FOREIGN KEY ({columns}) REFERENCES {target} ({keys})",
            f"ALTER TABLE {table} DROP CONSTRAINT {_name(table, columns)}",
        )
        for table, columns, target, keys in foreign_keys
    ]


def _name(table: str, columns: str) -> str:
    return f"{table}_{columns.split(', ')[-1]}_same_tenant"
