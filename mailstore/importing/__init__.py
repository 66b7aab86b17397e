"""Bringing mail along from other servers and from files, each message once."""
