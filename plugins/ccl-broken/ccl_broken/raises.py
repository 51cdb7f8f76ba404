"""This module raises an exception on import."""

raise RuntimeError("this module never imports")
