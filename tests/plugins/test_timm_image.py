from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import parse_model
from ccl_cli.data.video.reader import read_frames
from ccl_cli.errors import PluginError, WeightsError
from ccl_plugins.timm_image import Picture, TimmImage
from tests.plugins.windows import make_window

SMALL = "resnet18"


def from_spec(text):
    return TimmImage.from_spec(parse_model(text))


@pytest.fixture(scope="module")
def resnet34():
    torch.manual_seed(3)
    return timm.create_model("resnet34.tv_in1k").eval()


def pictures(count=2, size=96):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8))


@pytest.fixture(params=["resnet34-b627a593.pth", "resnet34.tv_in1k.safetensors"])
def published(request, tmp_path, resnet34):
    path = tmp_path / "cache" / "weights" / request.param
    path.parent.mkdir(parents=True)
    state = resnet34.state_dict()
    torch.save(state, path) if path.suffix == ".pth" else save_file(state, path)


@pytest.mark.usefixtures("published")
def test_the_papers_teacher_from_the_cache_in_both_published_forms(resnet34):
    teacher = from_spec("image:resnet34")
    assert (teacher.variant, teacher.dim, teacher.random_weights) == ("resnet34.tv_in1k", 512, False)
    assert teacher.preprocess == Picture(
        (224, 224), 0.875, "bilinear", False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    x = pictures()
    with torch.inference_mode():
        mean, std = (
            torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        scaled = (x / 255 - mean) / std
        features = resnet34.forward_features(scaled).mean(dim=(2, 3))
        torch.testing.assert_close(teacher(x), features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            teacher.class_probabilities(x), resnet34(scaled).softmax(1), rtol=1e-4, atol=1e-5
        )
    assert teacher.classes[0].startswith("tench")


def test_published_files_are_named_where_they_are_absent():
    with pytest.raises(WeightsError, match="`ccl teachers pull image:resnet34`"):
        from_spec("image:resnet34")
    (file,) = TimmImage.weight_files(parse_model("image:resnet34"))
    assert (file.filename, file.checksum) == ("resnet34-b627a593.pth", "sha256:b627a593")
    (file,) = TimmImage.weight_files(parse_model("image:vit_tiny_patch16_224"))
    assert file.url == "hf://timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors"
    assert file.licence
    with pytest.raises(WeightsError, match="no published weights"):
        TimmImage.weight_files(parse_model("image:resnet50_mlp"))


def test_real_weights_with_timms_own_options(shared):
    path = shared / "data" / "weights" / "timm_mobilenetv2_100_imagenet.safetensors"
    teacher = from_spec(f"image:mobilenetv2_100@{path}?pad_type=same&mean=0.5&std=0.5")
    assert teacher.dim == 1280
    assert teacher.variant == f"mobilenetv2_100@{path.name}?pad_type=same"
    direct = timm.create_model(
        "mobilenetv2_100", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, pad_type="same"
    ).eval()
    x = pictures()
    with torch.inference_mode():
        expected = direct.forward_head(direct.forward_features((x / 255 - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(teacher(x), expected, rtol=1e-4, atol=1e-4)
        other = from_spec(f"image:mobilenetv2_100@{path}?mean=0.5&std=0.5")
        assert (other(x) - expected).abs().max() > 0.01  # the padding matters
    assert other.fingerprint != teacher.fingerprint


def test_real_weights_recognise_a_real_clip(shared):
    """A person juggling a football on a real clip: the network must say something of that kind."""
    clip = shared / "data" / "clips" / "soccer_juggling" / "v_SoccerJuggling_g23_c01.avi"
    weights = shared / "data" / "weights" / "timm_mobilenetv2_100_imagenet.safetensors"
    teacher = from_spec(f"image:mobilenetv2_100@{weights}?pad_type=same&mean=0.5&std=0.5")
    frames = read_frames(clip, 0, 8, short_side=256).frames
    picture = teacher.preprocess(make_window(frames=frames, training=False))
    with torch.inference_mode():
        (likely,) = teacher.class_probabilities(picture[None])
    top = [teacher.classes[index] for index in likely.topk(5).indices]
    assert any("ball" in name for name in top), top


@pytest.mark.parametrize("classes", [0, 7])
def test_a_file_with_another_head_or_none(tmp_path, classes):
    network = timm.create_model(SMALL, num_classes=classes).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "tuned.pth")
    teacher = from_spec(f"image:{SMALL}@tuned.pth?mean=0&std=1")
    assert (teacher.dim, teacher.classes) == (512, None)  # nobody said what they are called
    x = pictures(1)
    with torch.inference_mode():
        if classes:
            expected = network(x / 255).softmax(dim=1)
            torch.testing.assert_close(teacher.class_probabilities(x), expected, rtol=1e-4, atol=1e-4)
        else:
            torch.testing.assert_close(teacher(x), network(x / 255), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [SMALL, "dla34"])  # timm itself would take any file for the second
def test_a_file_of_another_network_is_refused(tmp_path, name):
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=f"does not fit image:{name}") as caught:
        from_spec(f"image:{name}@other.safetensors")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("name", "near"), [("resnet43", "image:resnet34"), ("resnet34.tvin1k", "tv_in1k"), ("q", "")]
)
def test_unknown_networks(name, near):
    with pytest.raises(PluginError, match=f"no image network '{name}'.*{near}") as caught:
        from_spec(f"image:{name}?weights=random")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "option",
    [
        "mean=1,2",
        "std=0",
        "size=big",
        "size=0",
        "crop_pct=2",
        "interpolation=magic",
        "input=clip",
        "frame=same",
        "pad_typ=x",
    ],
)
def test_bad_options(option):
    with pytest.raises(PluginError, match=option.partition("=")[0]):
        from_spec(f"image:{SMALL}?{option}&weights=random")


def test_any_family_of_networks_and_any_size():
    for name, size in (("vit_tiny_patch16_224", 96), ("mobilenetv3_small_050", 64), ("levit_128s", 224)):
        teacher = from_spec(f"image:{name}?weights=random&size={size}")
        with torch.inference_mode():
            assert teacher(pictures(2, size)).shape == (2, teacher.dim)


# -- the picture

TESTING = Picture((224, 224), 0.875, "bicubic", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def numbered(frames=8, height=60, width=80):
    """Frames that are one grey level each: their own number."""
    return torch.arange(frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(320, 256), (60, 80), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_and_crop_are_timms(height, width, interpolation):
    network = timm.create_model(SMALL)
    config = resolve_model_data_config(network) | {"interpolation": interpolation, "crop_pct": 0.875}
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), 3)
    transform = create_transform(**config, is_training=False)
    transform.transforms = transform.transforms[:2]
    expected = torch.from_numpy(np.array(transform(smooth))).permute(2, 0, 1)
    picture = Picture((224, 224), 0.875, interpolation, False, TESTING.mean, TESTING.std)
    frames = torch.from_numpy(np.array(smooth))[None]
    difference = (picture(make_window(frames=frames)).int() - expected.int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.1


def test_squash_keeps_all_of_the_frame():
    frames = torch.zeros(1, 60, 120, 3, dtype=torch.uint8)
    frames[:, :, :30] = 200  # the left quarter
    squashed, cropped = (
        Picture((100, 100), 1.0, "bilinear", squash, TESTING.mean, TESTING.std)(make_window(frames=frames))
        for squash in (True, False)
    )
    assert (squashed > 100).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (cropped > 100).sum() == 0


def test_the_frame_is_drawn_in_training_and_the_middle_one_otherwise():
    seen = {int(TESTING(make_window(frames=numbered(), seed=seed))[0, 0, 0]) for seed in range(100)}
    assert seen == set(range(8))
    assert int(TESTING(make_window(frames=numbered(), training=False))[0, 0, 0]) == 4


def test_shared_frame_is_the_batchs():
    shared = Picture(**vars(TESTING) | {"frame": "shared"})
    drawn = [
        {int(shared(make_window(frames=numbered(), seed=seed, batch_seed=batch))[0, 0, 0]) for seed in (1, 2)}
        for batch in range(60)
    ]
    assert all(len(each) == 1 for each in drawn)
    assert set.union(*drawn) == set(range(8))


def test_student_clip_is_the_students_pixels():
    teacher = from_spec(f"image:{SMALL}?weights=random&input=student_clip&frame=shared")
    clip = Clip()
    assert teacher.preprocess.shape == (3, clip.size, clip.size)
    assert (teacher.preprocess.mean, teacher.preprocess.std) == (clip.mean, clip.std)
    window = make_window(training=False)
    assert torch.equal(teacher.preprocess(window), window.student_view[:, 4])
    larger = from_spec(f"image:{SMALL}?weights=random&input=student_clip&size=160")
    assert larger.preprocess(make_window()).shape == (3, 160, 160)
