"""Shared utilities without deep learning: files, terminal, signals and processes."""
