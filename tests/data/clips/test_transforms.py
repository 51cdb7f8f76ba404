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
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([row, column, torch.zeros_like(row)], -1).to(torch.uint8)
    video = image.repeat(frames, 1, 1, 1)
    video[..., 2] = torch.arange(frames)[:, None, None]
    return video


def crops(clip: Clip, count: int = 300, **size) -> np.ndarray:
    """[count, 5]: first and last row, first and last column, and whether it is flipped, read off the views."""
    video, found = position_coded(**size), []
    for seed in range(count):
        view = train_view(video, np.random.default_rng(seed), clip)[:, 0].float()
        edges = view[0, 0].mean(), view[0, -1].mean(), view[1, :, 0].mean(), view[1, :, -1].mean()
        found.append([*sorted(edges[:2]), *sorted(edges[2:]), edges[2] > edges[3]])
    return np.array(found, float)


def test_a_training_view_is_one_crop_of_all_frames():
    video = position_coded()
    view = train_view(video, np.random.default_rng(1), CLIP)
    assert view.shape == (3, 4, 32, 32)
    assert view.dtype == torch.uint8
    assert view.is_contiguous()
    assert (view[2] == torch.arange(4)[:, None, None]).all()  # frames stay in order
    assert torch.equal(view[:2, 0], view[:2, 3])  # and share crop and flip


def test_crops_have_the_areas_and_ratios_of_the_recipe():
    found = crops(CLIP)
    tall, wide = found[:, 1] - found[:, 0], found[:, 3] - found[:, 2]
    # Edges of the resized view are averages: half an output pixel is lost on either side.
    tall, wide = tall * 32 / 31, wide * 32 / 31
    area, ratio = tall * wide / (80 * 120), wide / tall
    assert 0.23 < area.min() < 0.3
    assert 0.7 < area.max() < 1.02
    assert 0.7 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.4
    assert abs(found[:, 4].mean() - 0.5) < 0.1
    centres = (found[:, 2] + found[:, 3]) / 2
    assert centres.min() < 40
    assert centres.max() > 80


def test_options_of_the_crop():
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
    assert torch.equal(eval_view(video.flip(2), CLIP), eval_view(video, CLIP).flip(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalised_bytes(dtype):
    video = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1, 1)[:, :, :, :, None]
    before = video.clone()
    result = normalize(video, CLIP.mean, CLIP.std, dtype)
    exact = (np.arange(256) / 255 - CLIP.mean[1]) / CLIP.std[1]
    assert result.dtype == dtype
    assert result.shape == video.shape
    assert torch.equal(video, before)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
    np.testing.assert_allclose(result[1, 1, 0, :, 0].double(), exact, atol=tolerance, rtol=tolerance)


def test_normalising_floats_leaves_them_alone():
    video = torch.full((1, 3, 1, 2, 2), 255.0)
    normalize(video, CLIP.mean, CLIP.std)
    assert (video == 255).all()


AUGMENTATIONS = {
    "color_jitter": {"color_jitter": (0.4, 0.4, 0.4, 0.1), "color_jitter_p": 1.0},
    "grayscale": {"grayscale": 1.0},
    "blur": {"blur": 1.0},
    "rand_augment": {"rand_augment": 2, "magnitude": 15},
    "erase": {"erase": 1.0},
}


def noise(frames: int = 3) -> torch.Tensor:
    """The same picture in every frame."""
    picture = torch.randint(0, 256, (1, 40, 40, 3), generator=torch.Generator().manual_seed(0))
    return picture.to(torch.uint8).repeat(frames, 1, 1, 1)


def augmented(seed: int, **options) -> torch.Tensor:
    clip = Clip(**WHOLE.model_dump(exclude={"augment"}), augment=options)
    return train_view(noise(), np.random.default_rng(seed), clip)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_is_one_setting_for_all_frames_and_a_function_of_the_generator(name):
    plain = augmented(0)
    views = [augmented(seed, **AUGMENTATIONS[name]) for seed in range(6)]
    assert all(torch.equal(view, augmented(seed, **AUGMENTATIONS[name])) for seed, view in enumerate(views))
    assert any(not torch.equal(view, plain) for view in views)
    for view in views:
        assert (view.dtype, view.shape) == (torch.uint8, plain.shape)
        assert torch.equal(view[:, :1].expand_as(view), view)


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    augmented(0, **AUGMENTATIONS["rand_augment"])
    assert torch.equal(torch.get_rng_state(), before)


def test_without_augmentation_nothing_more_is_drawn():
    rngs = np.random.default_rng(1), np.random.default_rng(1)
    train_view(noise(), rngs[0], WHOLE)
    train_view(noise(), rngs[1], Clip(**WHOLE.model_dump(exclude={"augment"}), augment={"blur": 1.0}))
    assert augmentations(Augment()) is None
    assert rngs[0].bit_generator.state != rngs[1].bit_generator.state


def test_what_each_augmentation_does():
    grey = augmented(0, grayscale=1.0)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    assert augmented(0, blur=1.0).float().var() < augmented(0).float().var()
    erased = augmented(0, erase=1.0) == 0
    assert 0.02 < erased.all(dim=0).float().mean() < 0.4
