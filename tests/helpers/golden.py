"""Comparison with stored reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Student and teacher of the same width, of another width, and after a ReLU.
TAGS = {"same": ("f_s", "f_t_same"), "diff": ("f_s", "f_t_diff"), "relu": ("f_s_relu", "f_t_relu")}


def load(shared: Path, name: str) -> dict[str, Tensor]:
    with np.load(shared / "golden" / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return {key: torch.from_numpy(array) for key, array in arrays.items() if array.dtype.kind != "U"}


def pair(golden: dict[str, Tensor], tag: str) -> tuple[Tensor, Tensor]:
    """Rows of a student, a leaf, and of a teacher."""
    student, teacher = (golden[name] for name in TAGS[tag])
    return student.requires_grad_(), teacher


def assert_reference(loss: Tensor, leaf: Tensor, golden: dict[str, Tensor], name: str) -> None:
    """A loss and its gradient at a leaf equal the stored ``<name>_loss`` and ``<name>_grad``."""
    loss.backward()
    assert_close(loss.detach(), golden[f"{name}_loss"], 1e-9)
    assert_close(leaf.grad, golden[f"{name}_grad"], 1e-9)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Difference relative to the largest entry of the expected array."""
    assert actual.shape == expected.shape
    scale = expected.abs().max().clamp(min=1e-12)
    worst = ((actual - expected).abs().max() / scale).item()
    assert worst <= tolerance, f"relative difference {worst:.2e} > {tolerance:.0e}"
