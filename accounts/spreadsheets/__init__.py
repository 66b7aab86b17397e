"""Mailboxes and aliases as CSV files: looked at whole, reported line by line, carried out all or none.

`mailboxes` and `aliases` each have `read`, `check`, `apply` and `write`; what is written can be read again.
"""

from accounts.spreadsheets import aliases, mailboxes
from accounts.spreadsheets.reports import BadLines, Problem, Report
from accounts.spreadsheets.tables import LIMIT, MOST_LINES, BadFile, Table

__all__ = ["LIMIT", "MOST_LINES", "BadFile", "BadLines", "Problem", "Report", "Table", "aliases", "mailboxes"]
