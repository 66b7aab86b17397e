"""The pages of a mailbox's owner: signing in, the password, devices, setting up a mail program.

They work without JavaScript. Those about the mail itself stand in `mailstore.pages`.
"""
