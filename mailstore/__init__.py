"""The mail: contents, messages, maildrops, and their life."""
