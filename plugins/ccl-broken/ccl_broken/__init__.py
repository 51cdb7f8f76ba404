"""Imports well, but has none of what the entry points promise."""

NUMBER = 1
