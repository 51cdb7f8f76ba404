"""Every family of students against the libraries' own networks, and the weights that they take."""

from __future__ import annotations

import logging
import math
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import video

from ccl_cli.errors import RecipeError, WeightsError
from ccl_cli.students.blocks import hub
from ccl_cli.students.frames import frames
from ccl_cli.students.r2plus1d import r2plus1d, r2plus1d_tiny
from ccl_cli.training.build import make_student

VIT = "timm:vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def shake(network: nn.Module) -> nn.Module:
    """Give every batch norm statistics and weights of a trained network's kind, and switch to evaluation."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
            ):
                nn.init.uniform_(tensor, low, high)
    return network.eval()


# ---- published weights


def slowfast(network: nn.Module, clips: Tensor, _: torch.Size) -> Tensor:
    """pytorchvideo's own pathways; its head has neither dropout in evaluation nor a softmax."""
    slow = clips[:, :, torch.linspace(0, clips.shape[2] - 1, clips.shape[2] // 4).long()]
    return network([slow, clips])


def fitted(network: nn.Module, clips: Tensor, size: torch.Size) -> Tensor:
    """The hub's own network with its fixed pooling fitted to a small clip, and without the softmax."""
    head = network.blocks[-1]
    place = head if isinstance(head.pool, nn.AvgPool3d) else head.pool
    place.pool, head.activation = nn.AvgPool3d(tuple(size), stride=1), None
    return network(clips)


# Student, the library's network, clip, and how that network is run if it takes more than a clip.
PUBLISHED = {
    name: (partial(getattr(hub, name), model_num_class=5), (4, 64), fitted)
    for name in (
        "x3d_xs",
        "x3d_s",
        "x3d_m",
        "x3d_l",
        "c2d_r50",
        "csn_r101",
        "i3d_r50",
        "r2plus1d_r50",
        "slow_r50",
    )
} | {
    "r2plus1d_18": (partial(video.r2plus1d_18, num_classes=5), (8, 56), None),
    "slowfast_r50": (partial(hub.slowfast_r50, model_num_class=5), (32, 224), slowfast),
    "s3d": (partial(video.s3d, num_classes=5), (24, 224), None),
    "mvit_base_16x4": (partial(hub.mvit_base_16x4, head_num_classes=5), (16, 224), None),
    "mvit_v2_s": (partial(video.mvit_v2_s, num_classes=5), (16, 224), None),
    "swin3d_t": (partial(video.swin3d_t, num_classes=5), (6, 64), None),
}
QUICK = "x3d_xs"


@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in PUBLISHED if each != QUICK)]
)
@torch.no_grad()
def test_published_checkpoint_gives_the_published_network(name, tmp_path):
    make, (length, size), run = PUBLISHED[name]
    theirs = shake(make())
    torch.save({"model_state": theirs.state_dict(), "cfg": "text"}, tmp_path / "published.pyth")
    ours = make_student(f"{name}@{tmp_path / 'published.pyth'}", 5).eval()
    clips = torch.randn(1, 3, length, size, size)
    out = ours(clips)
    expected = run(theirs, clips, out.stages[-1].shape[2:]) if run else theirs(clips)
    assert torch.allclose(out.logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert out.logits.std() > 0
    assert out.feature.shape == (1, ours.feature_dim)


@pytest.mark.parametrize("model", ["efficientnet_b0", "vit_tiny_patch16_224"])
@torch.no_grad()
def test_the_mean_over_frames_of_timms_own_feature(model, tmp_path):
    theirs = timm.create_model(model, num_classes=7).eval()
    save_file(theirs.state_dict(), tmp_path / "imagenet.safetensors")
    ours = frames(5, model=model, weights=str(tmp_path / "imagenet.safetensors")).eval()
    clips = torch.randn(2, 3, 3, 224, 224)
    theirs.reset_classifier(0)
    expected = torch.stack([theirs(clips[:, :, frame]) for frame in range(3)]).mean(dim=0)
    assert torch.allclose(ours(clips).feature, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["s3d", "r2plus1d_tiny", "timm:resnet18?shift=true"])
@torch.no_grad()
def test_own_model_files_load(name, tmp_path):
    trained = shake(make_student(name, 3))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    name, mark, options = name.partition("?")
    again = make_student(f"{name}@{tmp_path / 'model.safetensors'}{mark}{options}", 3).eval()
    clips = torch.randn(1, 3, 8, 64, 64)
    assert torch.equal(again(clips).logits, trained(clips).logits)


def test_other_classes_keep_a_random_classifier_and_say_so(tmp_path, caplog):
    theirs = r2plus1d_tiny(400)
    save_file(theirs.state_dict(), tmp_path / "kinetics.safetensors")
    with caplog.at_level(logging.WARNING, logger="ccl"):
        ours = r2plus1d_tiny(7, weights=str(tmp_path / "kinetics.safetensors"))
    assert "another classifier, of 400 classes" in caplog.text
    assert ours.classifier.weight.shape == (7, 64)
    assert all(map(torch.equal, ours.blocks.state_dict().values(), theirs.blocks.state_dict().values()))


@pytest.mark.parametrize("content", ["narrow", "foreign", "damaged", "absent"])
def test_weights_of_another_network_and_no_weights_are_refused(content, tmp_path):
    path = tmp_path / "weights.safetensors"
    if content == "damaged":
        path.write_text("not weights")
    elif content != "absent":
        state = r2plus1d_tiny(3, width=4).state_dict() if content == "narrow" else {"encoder": torch.ones(2)}
        save_file(state, path)
    with pytest.raises(WeightsError, match=r"weights\.safetensors") as caught:
        r2plus1d_tiny(3, weights=str(path))
    assert len(str(caught.value)) < 700


# ---- sizes


@pytest.mark.parametrize(
    ("name", "clip", "parameters", "gmac", "channels"),
    [
        ("r2plus1d_18", (16, 112), 31_505_325, 40.5, [64, 128, 256, 512]),
        ("r2plus1d_10", (16, 112), 14_570_503, 21.3, [64, 128, 256, 512]),
        ("r2plus1d_tiny", (16, 112), 222_425, 0.337, [8, 16, 32, 64]),
        ("slowfast_r50", (32, 224), 34_566_488, 50.3, [320, 640, 1280, 2048]),
        ("s3d", (16, 224), 8_320_048, 18.0, [192, 480, 832, 1024]),
        ("mvit_v2_s", (16, 224), 34_537_744, 64.2, [96, 192, 384, 768]),
        pytest.param("swin3d_t", (32, 224), 28_158_070, 87.8, [96, 192, 384, 768], marks=pytest.mark.slow),
        ("timm:resnet50?shift=true", (8, 224), 24_327_632, 32.7, [256, 512, 1024, 2048]),
    ],
)
def test_size_cost_and_stages(name, clip, parameters, gmac, channels):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        student = make_student(name, 400).eval()
        assert student.usual_clip == clip
        out = student(torch.empty(1, 3, clip[0], clip[1], clip[1]))
    assert sum(parameter.numel() for parameter in student.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)
    assert [stage.shape[1] for stage in out.stages] == channels
    strides = (2, 4, 8, 16) if name.startswith("r2plus1d") else (4, 8, 16, 32)
    assert [stage.shape[3] for stage in out.stages] == [clip[1] // stride for stride in strides]


@pytest.mark.parametrize("name", ["c2d_r50", "r2plus1d_r50", "x3d_s"])
def test_hub_networks_run_at_any_clip_length_and_size(name):
    with torch.device("meta"):
        student = make_student(name, 5)
        for clip in [(8, 64, 64), (13, 97, 65)]:
            out = student(torch.empty(2, 3, *clip))
            assert (out.logits.shape, out.feature.shape) == ((2, 5), (2, 2048))
            assert [stage.shape[3] for stage in out.stages] == [
                -(-clip[1] // side) for side in (4, 8, 16, 32)
            ]


def test_the_layouts_of_r2plus1d_have_the_widths_of_the_paper_and_of_vectors():
    with torch.device("meta"):
        # The published 18-layer layout counted with the official code's rule for the widths.
        official, narrow = r2plus1d(51, depths=(2, 2, 2, 2), layout="official"), make_student("r2plus1d_6", 6)
        out = narrow(torch.empty(2, 3, 8, 20, 20))
    assert sum(parameter.numel() for parameter in official.parameters()) == pytest.approx(33.2e6, rel=1e-3)
    second = official.blocks[2].res_blocks[0]
    convolutions = official.blocks[0].conv, second.branch2.conv_a, second.branch2.conv_b, second.branch1_conv
    assert [each.norm.num_features for each in convolutions] == [83, 230, 288, 42]
    assert [tuple(stage.shape[1:]) for stage in out.stages] == [(32, 2, 5, 5), (64, 1, 3, 3)]
    assert {m.out_channels for m in narrow.modules() if isinstance(m, nn.Conv3d)} == {16, 32, 64}


# ---- behaviour


@torch.no_grad()
def test_initialisation_of_r2plus1d_is_torchvisions():
    student = r2plus1d(200, depths=(1, 1, 1, 1), width=32)
    for module in student.modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.weight.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    assert student.classifier.weight.std() == pytest.approx(0.01, rel=0.05)
    assert torch.all(student.classifier.bias == 0)


@torch.no_grad()
def test_dropout_comes_after_the_feature():
    student, clips = r2plus1d_tiny(4, dropout=0.5), torch.randn(3, 3, 8, 32, 32)
    first, second = student(clips), student(clips)
    assert torch.equal(first.feature, second.feature)
    assert not torch.equal(first.logits, second.logits)


@torch.no_grad()
def test_the_shift_is_that_of_the_paper():
    """One residual block of a network with and without the shift, which is written out frame by frame."""
    shifted, plain = frames(5, model="resnet18", shift=True).eval(), frames(5, model="resnet18").eval()
    plain.load_state_dict(shifted.state_dict())
    seen: dict[bool, Tensor] = {}
    clips = torch.randn(1, 3, 4, 64, 64)
    for student, shift in ((shifted, True), (plain, False)):
        conv = student.blocks[0].layer1[0].conv1
        conv.register_forward_hook(lambda _, inputs, __, shift=shift: seen.setdefault(shift, inputs[0]))
        student(clips)
    before, after = seen[False], seen[True]
    share, none = before.shape[1] // 8, torch.zeros_like(before[:1])
    following, previous = torch.cat([before[1:], none]), torch.cat([none, before[:-1]])
    assert torch.equal(after[:, :share], following[:, :share])
    assert torch.equal(after[:, share : 2 * share], previous[:, share : 2 * share])
    assert torch.equal(after[:, 2 * share :], before[:, 2 * share :])


@pytest.mark.parametrize(
    ("name", "clip", "match"),
    [
        ("slowfast_r50", (18, 112), "multiple of 4 frames per clip, not 18"),
        ("s3d", (4, 112), "at least 8 frames"),
        ("mvit_v2_s", (16, 112), "16 frames of 224 pixels, not 16 of 112"),
        (VIT, (8, 112), "frames of 224 pixels, not 112"),
    ],
)
def test_clips_that_a_network_cannot_take_are_refused(name, clip, match):
    with torch.device("meta"):
        student = make_student(name, 5)
    student.check_clip(*student.usual_clip)
    with pytest.raises(RecipeError, match=match) as caught:
        student.check_clip(*clip)
    assert "--set clip." in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("timm:resnet5000", "timm has no model 'resnet5000'"),
        (f"{VIT}?shift=true", "shift=true requires a ResNet"),
        ("timm:resnet18?img_size=64", "does not support img_size"),
        ("r2plus1d_tiny?width=0", "width"),
        ("r2plus1d_tiny?dropout=1.0", "dropout"),
        ("r2plus1d_tiny?dropout=-0.1", "dropout"),
    ],
)
def test_impossible_options_are_sentences(name, match):
    with pytest.raises(RecipeError, match=match):
        make_student(name, 3)
