"""How mail gets out: POP3 (RFC 1939)."""
