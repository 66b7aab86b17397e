"""The second step of signing in to the admin, after the password: a code of an app, a passkey, or a recovery code."""
