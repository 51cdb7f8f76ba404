"""Comparison with stored reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def load(shared: Path, name: str) -> dict[str, Tensor]:
    with np.load(shared / "golden" / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Difference relative to the largest entry of the expected array."""
    assert actual.shape == expected.shape
    scale = expected.abs().max().clamp(min=1e-12)
    worst = ((actual - expected).abs().max() / scale).item()
    assert worst <= tolerance, f"relative difference {worst:.2e} > {tolerance:.0e}"
