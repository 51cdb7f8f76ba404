"""A benchmark: methods by teacher setups by seeds on one data set, each cell a run of its own."""
