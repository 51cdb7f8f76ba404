"""Fails while it is imported."""

raise RuntimeError("this module never imports")
