from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ccl_cli.config.recipe import Augment, Clip
from ccl_cli.data.clips.transforms import augmentations, eval_view, normalize, train_view

CLIP = Clip(size=32)
WHOLE = Clip(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)


def position_coded(frames: int = 4, height: int = 80, width: int = 120) -> torch.Tensor:
    """Red tells the row, green the column and blue the frame of each pixel."""
    axes = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([axes[1], axes[2], axes[0]], -1).to(torch.uint8)


def crops(clip: Clip, count: int = 300, **size) -> np.ndarray:
    """[count, 5]: first and last row, first and last column, and whether it is flipped, read off the views."""
    video, found = position_coded(**size), []
    for seed in range(count):
        view = train_view(video, np.random.default_rng(seed), clip)[:, 0].float()
        edges = view[0, 0].mean(), view[0, -1].mean(), view[1, :, 0].mean(), view[1, :, -1].mean()
        found.append([*sorted(edges[:2]), *sorted(edges[2:]), edges[2] > edges[3]])
    return np.array(found, float)


def test_a_training_view_is_one_crop_of_all_frames():
    view = train_view(position_coded(), np.random.default_rng(1), CLIP)
    assert (view.shape, view.dtype, view.is_contiguous()) == ((3, 4, 32, 32), torch.uint8, True)
    assert (view[2] == torch.arange(4)[:, None, None]).all()  # frames stay in order
    assert torch.equal(view[:2, 0], view[:2, 3])  # and share crop and flip


def test_crops_have_the_areas_and_ratios_of_the_recipe():
    found = crops(CLIP)
    # Edges of the resized view are averages: half an output pixel is lost on either side.
    tall, wide = ((found[:, at + 1] - found[:, at]) * 32 / 31 for at in (0, 2))
    area, ratio = tall * wide / (80 * 120), wide / tall
    for values, (low, lowest), (highest, high) in (
        (area, (0.23, 0.3), (0.7, 1.02)),
        (ratio, (0.7, 0.85), (1.2, 1.4)),
        ((found[:, 2] + found[:, 3]) / 2, (0, 40), (80, 120)),
    ):
        assert low < values.min() < lowest
        assert highest < values.max() < high
    assert abs(found[:, 4].mean() - 0.5) < 0.1
    assert crops(WHOLE, 20)[:, 4].sum() == 0
    assert crops(Clip(size=32, flip=1.0), 20)[:, 4].all()


@pytest.mark.parametrize(("height", "width"), [(20, 200), (200, 20), (1, 1), (7, 3)])
def test_frames_of_any_shape_have_views(height, width):
    video = position_coded(2, height, width)
    for seed in range(5):
        assert train_view(video, np.random.default_rng(seed), CLIP).shape == (3, 2, 32, 32)
    assert eval_view(video, CLIP).shape == (3, 2, 32, 32)


def test_a_flat_frame_is_cropped_to_an_allowed_ratio_at_its_centre():
    found = crops(Clip(size=32, scale=(1.0, 1.0), flip=0.0), 3, height=20, width=200)
    assert (found[:, 3] - found[:, 2]).max() < 20 * 4 / 3 + 1
    assert (found[:, 2] + found[:, 3]).mean() / 2 == pytest.approx(99.5, abs=1)


def test_the_evaluation_view_is_the_centre():
    video = torch.randint(0, 256, (4, 80, 120, 3), dtype=torch.uint8)
    expected = tv.center_crop(tv.resize(video.permute(0, 3, 1, 2), [32], antialias=True), [32, 32])
    assert torch.equal(eval_view(video, CLIP), expected.transpose(0, 1))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12), (torch.bfloat16, 1e-2)]
)
def test_normalised_bytes(dtype, tolerance):
    for kind in (torch.uint8, dtype):
        video = torch.arange(256).to(kind).repeat(2, 3, 1, 1)[:, :, :, :, None]
        before = video.clone()
        result = normalize(video, CLIP.mean, CLIP.std, dtype)
        exact = (before[1, 1, 0, :, 0].double().numpy() / 255 - CLIP.mean[1]) / CLIP.std[1]
        assert (result.dtype, result.shape) == (dtype, video.shape)
        assert torch.equal(video, before)
        np.testing.assert_allclose(result[1, 1, 0, :, 0].double(), exact, atol=tolerance, rtol=tolerance)


AUGMENTATIONS = {
    "color_jitter": {"color_jitter": (0.4, 0.4, 0.4, 0.1), "color_jitter_p": 1.0},
    "grayscale": {"grayscale": 1.0},
    "blur": {"blur": 1.0},
    "rand_augment": {"rand_augment": 2, "magnitude": 15},
    "erase": {"erase": 1.0},
}


def augmented(seed: int, **options) -> torch.Tensor:
    """The same noise in every frame."""
    noise = torch.randint(0, 256, (1, 40, 40, 3), generator=torch.Generator().manual_seed(0))
    clip = Clip(**WHOLE.model_dump(exclude={"augment"}), augment=options)
    return train_view(noise.to(torch.uint8).repeat(3, 1, 1, 1), np.random.default_rng(seed), clip)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_is_one_setting_for_all_frames_and_a_function_of_the_generator(name):
    plain, before = augmented(0), torch.get_rng_state()
    views = [augmented(seed, **AUGMENTATIONS[name]) for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), before)  # torch's own generator is left alone
    assert all(torch.equal(view, augmented(seed, **AUGMENTATIONS[name])) for seed, view in enumerate(views))
    assert any(not torch.equal(view, plain) for view in views)
    for view in views:
        assert (view.dtype, view.shape) == (torch.uint8, plain.shape)
        assert torch.equal(view[:, :1].expand_as(view), view)


def test_what_each_augmentation_does():
    assert augmentations(Augment()) is None
    grey = augmented(0, grayscale=1.0)
    assert torch.equal(grey, grey[:1].expand_as(grey))
    assert augmented(0, blur=1.0).float().var() < augmented(0).float().var()
    erased = augmented(0, erase=1.0) == 0
    assert 0.02 < erased.all(dim=0).float().mean() < 0.4
