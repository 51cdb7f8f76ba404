from __future__ import annotations

import pytest
import torch
from torch import nn

from ccl_cli.students import hub
from ccl_cli.students.blocks import hub as pytorchvideo_hub

SLOW = ["c2d_r50", "csn_r101", "i3d_r50", "r2plus1d_r50", "slow_r50", "x3d_s", "x3d_m", "x3d_l"]
CLIP = (4, 64, 64)


@pytest.mark.parametrize("name", ["c2d_r50", "r2plus1d_r50", "x3d_s"])
def test_runs_at_any_clip_length_and_size(name):
    with torch.device("meta"):
        student = getattr(hub, name)(5)
        for clip in [(8, 64, 64), (16, 112, 112), (13, 97, 65)]:
            out = student(torch.empty(2, 3, *clip))
            assert out.logits.shape == (2, 5)
            assert out.feature.shape == (2, student.feature_dim) == (2, 2048)
            heights = [stage.shape[3] for stage in out.stages]
            assert heights == [-(-clip[1] // stride) for stride in (4, 8, 16, 32)]


@pytest.mark.parametrize("name", ["x3d_xs", *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)])
@torch.no_grad()
def test_published_checkpoint_gives_the_published_network(name, tmp_path, shake):
    theirs = shake(getattr(pytorchvideo_hub, name)(model_num_class=5))
    torch.save({"model_state": theirs.state_dict(), "cfg": "text"}, tmp_path / "published.pyth")
    ours = getattr(hub, name)(5, weights=str(tmp_path / "published.pyth")).eval()
    video = torch.randn(2, 3, *CLIP)
    out = ours(video)
    expected = _fitted(theirs, out.stages[-1].shape[2:])(video)
    assert torch.allclose(out.logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert out.logits.std() > 0


def _fitted(network: nn.Module, size: torch.Size) -> nn.Module:
    """The hub's own network with its fixed pooling fitted to a small clip, and without the softmax."""
    head = network.blocks[-1]
    pool = nn.AvgPool3d(tuple(size), stride=1)
    if isinstance(head.pool, nn.AvgPool3d):
        head.pool = pool
    else:
        head.pool.pool = pool
    head.activation = None
    return network
