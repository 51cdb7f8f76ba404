"""What there is to choose from, and what this machine can do."""
