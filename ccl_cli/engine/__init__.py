"""Runs: build the parts of a recipe, train, checkpoint, evaluate."""
