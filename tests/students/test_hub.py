from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ccl_cli.errors import WeightsError
from ccl_cli.students import hub
from ccl_cli.students.blocks import hub as pytorchvideo_hub

NAMES = ["c2d_r50", "csn_r101", "i3d_r50", "r2plus1d_r50", "slow_r50", "x3d_xs", "x3d_s", "x3d_m", "x3d_l"]
CLIP = (4, 64, 64)


def some_quick(*quick: str) -> pytest.MarkDecorator:
    marked = [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in NAMES]
    return pytest.mark.parametrize("name", marked)


@some_quick("c2d_r50", "r2plus1d_r50", "x3d_s")
def test_runs_at_any_clip_length_and_size(name):
    with torch.device("meta"):
        student = getattr(hub, name)(5)
        for clip in [(8, 64, 64), (16, 112, 112), (13, 97, 65)]:
            out = student(torch.empty(2, 3, *clip))
            assert out.logits.shape == (2, 5)
            assert out.feature.shape == (2, student.feature_dim) == (2, 2048)
            heights = [stage.shape[3] for stage in out.stages]
            assert heights == [-(-clip[1] // stride) for stride in (4, 8, 16, 32)]


@some_quick("c2d_r50", "x3d_xs")
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


def test_other_classes_keep_a_random_classifier_and_say_so(tmp_path, shake, caplog):
    theirs = shake(pytorchvideo_hub.x3d_xs(model_num_class=400))
    save_file(theirs.state_dict(), tmp_path / "kinetics.safetensors")
    with caplog.at_level(logging.WARNING, logger="ccl"):
        ours = hub.x3d_xs(5, weights=str(tmp_path / "kinetics.safetensors"))
    assert "another classifier, of 400 classes" in caplog.text
    assert ours.classifier.weight.shape == (5, 2048)
    assert torch.equal(ours.pool.post_conv.weight, theirs.blocks[5].pool.post_conv.weight)
    assert torch.equal(ours.blocks[0].conv.conv_t.weight, theirs.blocks[0].conv.conv_t.weight)


@torch.no_grad()
def test_own_model_files_load(tmp_path, shake):
    trained = shake(hub.x3d_xs(3))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    again = hub.x3d_xs(3, weights=str(tmp_path / "model.safetensors")).eval()
    video = torch.randn(1, 3, *CLIP)
    assert torch.equal(again(video).logits, trained(video).logits)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(pytorchvideo_hub.x3d_xs(model_num_class=5).state_dict(), tmp_path / "x3d.safetensors")
    with pytest.raises(WeightsError, match=r"tensors are missing \(blocks\."):
        hub.x3d_l(5, weights=str(tmp_path / "x3d.safetensors"))


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    student = hub.x3d_xs(4)
    # The last batch norm of each block starts at zero, which cuts its branch off in the first step.
    for module in student.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    nn.functional.cross_entropy(student(torch.randn(4, 3, *CLIP)).logits, torch.arange(4)).backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_evaluation_looks_at_each_clip_alone_in_any_memory_format(shake):
    student = shake(hub.x3d_xs(4))
    video = torch.randn(2, 3, *CLIP)
    together = student(video)
    assert torch.allclose(student(video[:1]).logits, together.logits[:1], atol=1e-4)
    student = student.to(memory_format=torch.channels_last_3d)
    last = student(video.contiguous(memory_format=torch.channels_last_3d))
    assert torch.allclose(last.feature, together.feature, atol=1e-4)


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
