"""This module exits the program on import."""

import sys

sys.exit(3)
