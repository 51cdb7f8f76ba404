"""Tries to end the whole program while it is imported."""

import sys

sys.exit(3)
