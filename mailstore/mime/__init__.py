"""What stands in a message (MIME). Runs in a process of its own (`mailstore.reading`), and knows no Django."""
