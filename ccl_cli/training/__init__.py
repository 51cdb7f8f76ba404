"""One training run: from a recipe to a published model."""
