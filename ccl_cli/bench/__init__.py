"""Benchmarks: a matrix of methods, teacher setups and seeds, with one run per cell."""
