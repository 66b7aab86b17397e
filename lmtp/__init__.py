"""How mail gets in: LMTP (RFC 2033)."""
