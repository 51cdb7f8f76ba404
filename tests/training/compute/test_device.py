from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from ccl_cli.errors import RecipeError
from ccl_cli.training.compute import batch_norm
from ccl_cli.training.compute.device import pad_time_apart


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_gradients_in_bf16_on_a_cpu_are_those_of_single_precision(layout):
    """Two frames and a kernel of three: where oneDNN's own padding gives garbage on some CPUs."""
    torch.manual_seed(0)
    layer = nn.Conv3d(32, 16, (3, 1, 1), padding=(1, 0, 0), bias=False).to(memory_format=layout)
    clip = torch.randn(4, 32, 2, 7, 7).contiguous(memory_format=layout)
    (exact,) = torch.autograd.grad(layer(clip).square().sum(), layer.weight)
    pad_time_apart(layer)
    for _ in range(5):  # what was in memory before decides what garbage looks like
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(clip).float().square().sum()
        (rounded,) = torch.autograd.grad(loss, layer.weight)
        assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_time_is_padded_apart_by_what_each_clip_is_like():
    layer = nn.Conv3d(2, 3, (3, 1, 1), padding=(1, 0, 0)).double()
    clips = [torch.randn(1, 2, frames, 5, 5, dtype=torch.float64) for frames in (2, 6, 1, 3, 2)]
    before = [layer(clip) for clip in clips]
    pad_time_apart(layer)
    for clip, expected in zip(clips, before, strict=True):
        assert torch.allclose(layer(clip), expected, rtol=1e-12)


class WithActivation(nn.BatchNorm3d):
    def forward(self, x):
        return super().forward(x).relu()


def test_a_batch_norm_that_does_more_than_normalise_is_not_replaced(monkeypatch):
    monkeypatch.setattr(batch_norm, "world_size", lambda: 2)
    network = nn.Sequential(nn.BatchNorm3d(2), WithActivation(2))
    with pytest.raises(RecipeError, match="layer '1', a WithActivation, cannot share"):
        batch_norm.share_statistics(network, torch.device("cpu"))
    batch_norm.share_statistics(network[:1], torch.device("cpu"))


@pytest.mark.slow
def test_processes_that_cannot_meet_are_told_what_to_check():
    code = "from ccl_cli.training.compute.device import set_up\nset_up('fp32')"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **place, **group}, capture_output=True, text=True
        )
    assert "SystemSetupError: The processes of this run did not find each other" in done.stderr
    assert "MASTER_PORT" in done.stderr
