"""Results of run folders: all runs, means over seeds, and comparisons of methods."""
