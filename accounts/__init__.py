"""Who has mail: tenants, domains, mailboxes, and how they sign in."""
