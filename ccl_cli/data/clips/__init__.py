"""From a manifest to batches: which clips, in which order, seen how, decoded by which processes."""
