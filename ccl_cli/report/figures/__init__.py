"""Figures, one file each.

A figure is a function from results to rows of panels (``panel.py``). A new figure needs a file and an entry
in ``FIGURES`` (``registry.py``).
"""
