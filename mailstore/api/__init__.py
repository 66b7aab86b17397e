"""The API of the mail, on what `accounts.api` gives every resource."""
