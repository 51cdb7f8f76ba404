"""Files of a run: folder, checkpoints, published model, summary and metrics."""
