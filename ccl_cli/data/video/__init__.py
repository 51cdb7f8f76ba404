"""One video: where its bytes lie, its metadata, its frames and its sound."""
