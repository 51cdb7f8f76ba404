"""Use a model on video files that have no labels."""
