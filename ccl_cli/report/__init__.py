"""Reports from run folders: tables and comparisons. Nothing here imports torch."""
