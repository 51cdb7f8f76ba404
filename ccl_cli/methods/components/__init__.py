"""Components that methods share: losses, relations between rows, memory banks, random draws, batch norm."""
