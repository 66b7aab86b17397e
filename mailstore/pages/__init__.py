"""The pages of a mailbox's owner about the mail: who fetched it, what was removed, and how to get it back or out."""
