"""The pages of a mailbox's owner: signing in, the password, devices, setting up a mail program.

They work without JavaScript; the only script tells in which time zone they are read. Those about the mail itself stand
in `mailstore.pages`.
"""
