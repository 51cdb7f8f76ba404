"""Results of run folders: the pandas frame of all runs, means over seeds, and comparisons of methods."""
