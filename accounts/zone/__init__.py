"""What a hosted domain should have in DNS, and whether it has it."""
