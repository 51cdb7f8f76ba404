"""Checks of a data set: every file inspected, its problems listed and its statistics counted."""
