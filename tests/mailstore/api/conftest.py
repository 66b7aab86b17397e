"""Two tenants with mail, and programs that ask for it."""

from tests.accounts.api.conftest import admin, foreign_admin, host, other_reseller, program, reseller

__all__ = ["admin", "foreign_admin", "host", "other_reseller", "program", "reseller"]
