"""Embeddings of teachers, computed once for a run: which caches it may read, and how they are made."""
