"""Parts of which methods are made: losses, relations between rows, memory banks, draws, normalisation."""
