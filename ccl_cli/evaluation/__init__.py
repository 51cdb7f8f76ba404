"""Evaluation of published models (recognition, retrieval, probes) and of teachers."""
