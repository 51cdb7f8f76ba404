from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.video import r2plus1d_18 as torchvision_r2plus1d_18

from ccl_cli.errors import RecipeError, WeightsError
from ccl_cli.students.r2plus1d import (
    mid_channels,
    r2plus1d,
    r2plus1d_6,
    r2plus1d_10,
    r2plus1d_18,
    r2plus1d_tiny,
)


@pytest.mark.slow
@torch.no_grad()
def test_takes_torchvision_weights_with_no_difference(tmp_path, shake):
    theirs = shake(torchvision_r2plus1d_18(num_classes=7))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = r2plus1d_18(7, weights=str(tmp_path / "theirs.pth")).eval()
    video = torch.randn(2, 3, 8, 56, 56)
    out = ours(video)
    assert (out.logits - theirs(video)).abs().max() == 0.0
    theirs.fc = nn.Identity()
    assert (out.feature - theirs(video)).abs().max() == 0.0
    assert out.feature.std() > 0.01


def test_other_classes_keep_a_random_classifier_and_say_so(tmp_path, shake, caplog):
    theirs = shake(torchvision_r2plus1d_18(num_classes=400))
    save_file(theirs.state_dict(), tmp_path / "kinetics.safetensors")
    with caplog.at_level(logging.WARNING, logger="ccl"):
        ours = r2plus1d_18(7, weights=str(tmp_path / "kinetics.safetensors"))
    assert "another classifier, of 400 classes" in caplog.text
    assert ours.classifier.weight.shape == (7, 512)
    trunk = {key: value for key, value in ours.state_dict().items() if not key.startswith("classifier")}
    expected = [value for key, value in theirs.state_dict().items() if not key.startswith("fc")]
    assert len(trunk) == len(expected)
    assert sum(value.double().sum() for value in trunk.values()) == pytest.approx(
        float(sum(value.double().sum() for value in expected))
    )


def test_weights_of_another_network_are_refused(tmp_path, caplog):
    save_file(r2plus1d_tiny(3, width=4).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"another shape \(blocks\.0\..*instead of"):
        r2plus1d_tiny(3, weights=str(tmp_path / "other.safetensors"))
    save_file({"encoder.weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match=r"missing \(blocks\.0\.conv.*unknown \(encoder\.weight\)"):
        r2plus1d_tiny(3, weights=str(tmp_path / "foreign.safetensors"))
    assert not caplog.text


def test_missing_and_damaged_files_are_sentences(tmp_path: Path):
    with pytest.raises(WeightsError, match="There is no weights file"):
        r2plus1d_tiny(3, weights=str(tmp_path / "absent.pth"))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(WeightsError, match=r"text\.pth"):
        r2plus1d_tiny(3, weights=str(tmp_path / "text.pth"))


@pytest.mark.parametrize(
    ("factory", "parameters", "gflop", "width"),
    [
        (r2plus1d_18, 31_326_288, 81.0, 64),
        (r2plus1d_10, 14_391_466, 42.7, 64),
        (r2plus1d_tiny, 199_740, 0.67, 8),
    ],
)
def test_size_cost_and_stages(factory, parameters, gflop, width):
    with torch.device("meta"):
        student, video = factory(51), torch.empty(1, 3, 16, 112, 112)
    assert sum(parameter.numel() for parameter in student.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        out = student(video)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.01)
    assert student.blocks[0](video).shape == (1, width, 16, 56, 56)
    assert [tuple(stage.shape[1:]) for stage in out.stages] == [
        (width, 16, 56, 56),
        (2 * width, 8, 28, 28),
        (4 * width, 4, 14, 14),
        (8 * width, 2, 7, 7),
    ]
    assert out.feature.shape == (1, student.feature_dim) == (1, 8 * width)


def test_official_widths_follow_the_formula_everywhere():
    # The published 18-layer layout counted with the official code's rule for the widths.
    with torch.device("meta"):
        official = r2plus1d(51, depths=(2, 2, 2, 2), layout="official")
    assert sum(parameter.numel() for parameter in official.parameters()) == pytest.approx(33.2e6, rel=1e-3)
    assert mid_channels(3, 64, (3, 7, 7)) == official.blocks[0].conv.norm.num_features == 83
    second = official.blocks[2].res_blocks[0]
    assert (second.branch2.conv_a.norm.num_features, second.branch2.conv_b.norm.num_features) == (230, 288)
    assert second.branch1_conv.norm.num_features == 64 * 128 // (64 + 128)


def test_the_shallow_one_has_two_stages_whose_widths_fill_vectors():
    with torch.device("meta"):
        student, video = r2plus1d_6(6), torch.empty(2, 3, 8, 20, 20)
    out = student(video)
    assert out.feature.shape == (2, 64)
    assert [tuple(stage.shape[1:]) for stage in out.stages] == [(32, 2, 5, 5), (64, 1, 3, 3)]
    assert sum(parameter.numel() for parameter in student.parameters()) == 106_934
    widths = {m.out_channels for m in student.modules() if isinstance(m, nn.Conv3d)}
    assert widths == {16, 32, 64}


@torch.no_grad()
def test_training_uses_the_batch_and_drops_features():
    torch.manual_seed(0)
    student = r2plus1d_tiny(4, dropout=0.5)
    mean = student.blocks[0].norm.running_mean.clone()
    video = torch.randn(3, 3, 8, 32, 32)
    first, second = student(video), student(video)
    assert not torch.equal(student.blocks[0].norm.running_mean, mean)
    assert torch.equal(first.feature, second.feature)  # dropout comes after the feature
    assert not torch.equal(first.logits, second.logits)


@torch.no_grad()
def test_channels_last_changes_nothing(shake):
    student = shake(r2plus1d_tiny(4))
    video = torch.randn(2, 3, 8, 48, 48)
    plain = student(video)
    student = student.to(memory_format=torch.channels_last_3d)
    last = student(video.contiguous(memory_format=torch.channels_last_3d))
    assert torch.allclose(last.feature, plain.feature, atol=1e-4)
    assert torch.allclose(last.logits, plain.logits, atol=1e-4)


@torch.no_grad()
def test_initialisation_is_torchvisions():
    torch.manual_seed(0)
    student = r2plus1d(200, depths=(1, 1, 1, 1), width=32)
    for module in student.modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.weight.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        if isinstance(module, nn.BatchNorm3d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
    assert student.classifier.weight.std() == pytest.approx(0.01, rel=0.05)
    assert torch.all(student.classifier.bias == 0)


@pytest.mark.parametrize("options", [{"width": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_options_are_sentences(options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        r2plus1d_tiny(3, **options)
