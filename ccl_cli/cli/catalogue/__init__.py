"""Commands that list plugins and recipes, and ``ccl doctor``."""
