"""`ccl`: distil frozen teacher networks into one small video network (Chen et al., CVPR 2021)."""

__version__ = "0.1.0"
