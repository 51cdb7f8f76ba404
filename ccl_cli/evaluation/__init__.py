"""Recognition and retrieval of a published model, and what teachers know of a data set's classes."""
