"""This module imports, but the objects of the entry points are missing or of the wrong type."""

NUMBER = 1
