"""`manage.py addmailboxes`: the older name of `importmailboxes`."""

from accounts.management.commands.importmailboxes import Command as ImportMailboxes


class Command(ImportMailboxes):
    """The same."""
