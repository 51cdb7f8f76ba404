"""Is the data what one thinks? Every file inspected, and counted."""
