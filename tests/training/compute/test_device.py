from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from ccl_cli.training.build import make_student
from ccl_cli.training.compute.device import pad_time_apart


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["r2plus1d_tiny", "x3d_xs"])
def test_padding_time_apart_changes_nothing(spec):
    torch.manual_seed(0)
    student = make_student(spec, 3).double()
    clip = torch.rand(2, 3, 8, 32, 32, dtype=torch.float64)
    names = list(student.state_dict())
    torch.manual_seed(1)  # of dropout
    before = student.train()(clip)
    before.logits.sum().backward()
    gradients = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()
    pad_time_apart(student)
    torch.manual_seed(1)
    after = student(clip)
    after.logits.sum().backward()
    assert list(student.state_dict()) == names
    assert torch.allclose(before.feature, after.feature, rtol=1e-12)
    for gradient, parameter in zip(gradients, student.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_gradients_in_bf16_on_a_cpu_are_those_of_single_precision(layout):
    """Two frames and a kernel of three: where oneDNN's own padding gives garbage on some CPUs."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(32, 16, (3, 1, 1), padding=(1, 0, 0), bias=False)).to(
        memory_format=layout
    )
    clip = torch.randn(4, 32, 2, 7, 7).contiguous(memory_format=layout)
    (exact,) = torch.autograd.grad(network(clip).square().sum(), network[0].weight)
    pad_time_apart(network)
    for _ in range(5):  # what was in memory before decides what garbage looks like
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(clip).float().square().sum()
        (rounded,) = torch.autograd.grad(loss, network[0].weight)
        assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_time_is_padded_apart_by_what_each_clip_is_like():
    network = nn.Sequential(nn.Conv3d(2, 3, (3, 1, 1), padding=(1, 0, 0))).double()
    clips = [torch.randn(1, 2, frames, 5, 5, dtype=torch.float64) for frames in (2, 6, 1, 3, 2)]
    before = [network(clip) for clip in clips]
    pad_time_apart(network)
    for clip, expected in zip(clips, before, strict=True):
        assert torch.allclose(network(clip), expected, rtol=1e-12)


@pytest.mark.slow
def test_processes_that_cannot_meet_are_told_what_to_check():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        group = {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(taken.getsockname()[1]),
            "ACCELERATE_USE_CPU": "true",
        }
        code = """
from ccl_cli.training.compute.device import set_up
from ccl_cli.errors import SystemSetupError
try:
    set_up("fp32")
except SystemSetupError as error:
    print(error, error.hint)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | group, capture_output=True, text=True, timeout=120
        )
    assert "did not find each other" in done.stdout, done.stderr
    assert "address already in use" in done.stdout
    assert "MASTER_PORT" in done.stdout
