"""SlowFast, S3D, video transformers and timm's networks against the libraries' own forward passes."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import video

from ccl_cli.errors import RecipeError, WeightsError
from ccl_cli.students.blocks import hub as pytorchvideo_hub
from ccl_cli.students.frames import frames
from ccl_cli.students.hub import slowfast_r50
from ccl_cli.students.separable import s3d
from ccl_cli.students.transformers import mvit_base_16x4, mvit_v2_s, swin3d_t

STUDENTS = {
    "slowfast_r50": slowfast_r50,
    "s3d": s3d,
    "mvit_base_16x4": mvit_base_16x4,
    "mvit_v2_s": mvit_v2_s,
    "swin3d_t": swin3d_t,
    "timm:resnet50?shift=true": partial(frames, model="resnet50", shift=True),
    "timm:vit_tiny_patch16_224": partial(frames, model="vit_tiny_patch16_224"),
}


def slowfast(network: nn.Module, clips: Tensor) -> Tensor:
    """pytorchvideo's own pathways; its head has neither dropout in evaluation nor a softmax."""
    slow = clips[:, :, torch.linspace(0, clips.shape[2] - 1, clips.shape[2] // 4).long()]
    return network([slow, clips])


# Student, the library's network, clip, and how that network is run if it takes more than a clip.
PUBLISHED = {
    "slowfast_r50": (partial(pytorchvideo_hub.slowfast_r50, model_num_class=5), (32, 224), slowfast),
    "s3d": (partial(video.s3d, num_classes=5), (24, 224), None),
    "mvit_base_16x4": (partial(pytorchvideo_hub.mvit_base_16x4, head_num_classes=5), (16, 224), None),
    "mvit_v2_s": (partial(video.mvit_v2_s, num_classes=5), (16, 224), None),
    "swin3d_t": (partial(video.swin3d_t, num_classes=5), (6, 64), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_published_checkpoint_gives_the_published_network(name, tmp_path, shake):
    make, (length, size), run = PUBLISHED[name]
    theirs = shake(make())
    torch.save({"model_state": theirs.state_dict()}, tmp_path / "published.pyth")
    ours = STUDENTS[name](5, weights=str(tmp_path / "published.pyth")).eval()
    clips = torch.randn(1, 3, length, size, size)
    expected = run(theirs, clips) if run else theirs(clips)
    out = ours(clips)
    assert torch.allclose(out.logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert out.logits.std() > 0
    assert out.feature.shape == (1, ours.feature_dim)


@pytest.mark.parametrize(
    ("name", "parameters", "gmac", "channels"),
    [
        ("slowfast_r50", 34_566_488, 50.3, [320, 640, 1280, 2048]),
        ("s3d", 8_320_048, 18.0, [192, 480, 832, 1024]),
        ("mvit_v2_s", 34_537_744, 64.2, [96, 192, 384, 768]),
        pytest.param("swin3d_t", 28_158_070, 87.8, [96, 192, 384, 768], marks=pytest.mark.slow),
        ("timm:resnet50?shift=true", 24_327_632, 32.7, [256, 512, 1024, 2048]),
    ],
)
def test_size_cost_and_stages(name, parameters, gmac, channels):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        student = STUDENTS[name](400).eval()
        length, size = student.usual_clip
        out = student(torch.empty(1, 3, length, size, size))
    assert sum(parameter.numel() for parameter in student.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)
    assert [stage.shape[1] for stage in out.stages] == channels
    assert [stage.shape[3] for stage in out.stages] == [56, 28, 14, 7]


@pytest.mark.parametrize("make", [s3d, partial(frames, model="resnet18", shift=True)], ids=["s3d", "timm"])
@torch.no_grad()
def test_own_model_files_load(make, tmp_path, shake):
    trained = shake(make(3))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    again = make(3, weights=str(tmp_path / "model.safetensors")).eval()
    clips = torch.randn(1, 3, 8, 64, 64)
    assert torch.equal(again(clips).logits, trained(clips).logits)


@pytest.mark.parametrize("model", ["efficientnet_b0", "vit_tiny_patch16_224"])
@torch.no_grad()
def test_the_mean_over_frames_of_timms_own_feature(model, tmp_path, shake):
    theirs = timm.create_model(model, num_classes=7).eval()
    save_file(theirs.state_dict(), tmp_path / "imagenet.safetensors")
    ours = frames(5, model=model, weights=str(tmp_path / "imagenet.safetensors")).eval()
    clips = torch.randn(2, 3, 3, 224, 224)
    theirs.reset_classifier(0)
    expected = torch.stack([theirs(clips[:, :, frame]) for frame in range(3)]).mean(dim=0)
    assert torch.allclose(ours(clips).feature, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_shift_is_that_of_the_paper():
    """One residual block of a network with and without the shift, which is written out frame by frame."""
    torch.manual_seed(0)
    shifted = frames(5, model="resnet18", shift=True).eval()
    plain = frames(5, model="resnet18").eval()
    plain.load_state_dict(shifted.state_dict())
    seen: dict[bool, Tensor] = {}
    for student, shift in ((shifted, True), (plain, False)):
        conv = student.blocks[0].layer1[0].conv1
        conv.register_forward_hook(lambda _, inputs, __, shift=shift: seen.setdefault(shift, inputs[0]))
        student(torch.randn(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(1)))
    before, after = seen[False], seen[True]
    share = before.shape[1] // 8
    for frame in range(4):
        following = before[frame + 1, :share] if frame < 3 else torch.zeros_like(before[0, :share])
        previous = before[frame - 1, share : 2 * share] if frame else torch.zeros_like(before[0, :share])
        assert torch.equal(after[frame, :share], following)
        assert torch.equal(after[frame, share : 2 * share], previous)
        assert torch.equal(after[frame, 2 * share :], before[frame, 2 * share :])


@pytest.mark.parametrize(
    ("name", "clip", "match"),
    [
        ("slowfast_r50", (18, 112), "multiple of 4 frames per clip, not 18"),
        ("s3d", (4, 112), "at least 8 frames"),
        ("mvit_v2_s", (16, 112), "16 frames of 224 pixels, not 16 of 112"),
        ("timm:vit_tiny_patch16_224", (8, 112), "frames of 224 pixels, not 112"),
    ],
)
def test_clips_that_a_network_cannot_take_are_refused(name, clip, match):
    with torch.device("meta"):
        student = STUDENTS[name](5)
    student.check_clip(*student.usual_clip)
    with pytest.raises(RecipeError, match=match) as caught:
        student.check_clip(*clip)
    assert "--set clip." in str(caught.value.hint)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": "resnet5000"}, "timm has no model 'resnet5000'"),
        ({"model": "vit_tiny_patch16_224", "shift": True}, "shift=true requires a ResNet"),
        ({"model": "resnet18", "img_size": 64}, "does not support img_size"),
    ],
)
def test_impossible_options_are_sentences(options, match):
    with pytest.raises(RecipeError, match=match):
        frames(5, **options)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(WeightsError, match="another network"):
        frames(5, model="resnet34", weights=str(tmp_path / "resnet18.safetensors"))
