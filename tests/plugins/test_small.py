"""The built-in small teachers."""

from __future__ import annotations

import pytest
import torch

from ccl_cli.errors import PluginError
from ccl_cli.training.build import load_teacher


def test_the_shortest_track_has_an_embedding():
    teacher = load_teacher("audio:small?weights=random&seconds=0.234375")
    assert teacher(torch.randn(2, *teacher.preprocess.shape)).shape == (2, teacher.dim)
    with pytest.raises(PluginError, match=r"needs at least 0\.234375 seconds, not 0\.234\."):
        load_teacher("audio:small?weights=random&seconds=0.234")
