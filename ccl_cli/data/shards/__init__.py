"""Data sets re-encoded into tar files that are quick to read."""
