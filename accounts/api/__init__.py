"""The REST API: what all its resources stand on, and those of who has mail."""
