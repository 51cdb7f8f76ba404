"""Steps that are not finite: what the guard keeps before each step, and what a skipped one leaves behind."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.cmc import CMC
from ccl_cli.methods.components.draws import SharedDraws
from ccl_cli.methods.components.memory_bank import shard_banks
from ccl_cli.methods.crd import CRD
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training.compute.nonfinite import StepGuard

VIDEOS, ROWS = 5000, 6


@pytest.fixture(params=[(CRD, False), (CRD, True), (CMC, False)], ids=["crd", "crd sharded", "cmc"])
def module(request):
    """A method with banks beside a layer with batch statistics."""
    torch.manual_seed(0)
    method, shard_memory = request.param
    teachers = (TeacherInfo("audio:a", "audio", 5), TeacherInfo("image:i", "image", 7))
    options = method.Options(num_negatives=32, dim=8, shard_memory=shard_memory)
    built = method(options, Setting(6, 4, torch.arange(VIDEOS) % 4, teachers))
    shard_banks(built)
    return nn.ModuleDict({"method": built, "norm": nn.BatchNorm1d(6)})


def forward(module, seed):
    """One micro-batch; a video stands in it twice, another one lacks its sound."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(VIDEOS, (ROWS,), generator=generator)
    rows[1] = rows[0]
    feature = module["norm"](torch.randn(ROWS, 6, generator=generator))
    present = torch.arange(ROWS) != 2
    teachers = {
        "audio:a": Embedding(torch.rand(ROWS, 5, generator=generator) * present[:, None], present),
        "image:i": Embedding(torch.rand(ROWS, 7, generator=generator), torch.ones(ROWS, dtype=torch.bool)),
    }
    batch = Batch(torch.empty(0), rows % 4, rows, {}, 0)
    module["method"](StudentOutput(feature, torch.zeros(ROWS, 4)), teachers, batch)


def state(module):
    """All buffers and numbers of draws, to compare with ``==``."""
    drawn = [part.draws for part in module.modules() if isinstance(part, SharedDraws)]
    return drawn, {name: buffer.nan_to_num(7.0).tolist() for name, buffer in module.named_buffers()}


def test_a_skipped_step_leaves_no_trace_and_a_step_that_is_taken_is_as_without_the_guard(module):
    alone, guard = deepcopy(module), StepGuard()
    for seed in (1, 2):
        guard.snapshot(module)
        assert sum(copy.numel() for copy in guard._buffers.values()) < 100  # of 40,000 in a bank
        forward(module, seed)
        guard.accept()
        forward(alone, seed)
    before = state(module)
    assert before == state(alone)
    guard.snapshot(module)
    for seed in (3, 4, 3):  # micro-batches of one step, the last one with the first one's videos again
        forward(module, seed)
    assert all(one != other for one, other in zip(before, state(module), strict=True))
    guard.skip(module, 0)
    assert state(module) == before
    assert (guard.total, guard.in_a_row) == (1, 1)
