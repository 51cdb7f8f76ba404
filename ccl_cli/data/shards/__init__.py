"""Packing: data sets re-encoded into tar files that are fast to read."""
