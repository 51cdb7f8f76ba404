"""EfficientAT on real sounds with its published weights, against what the published code makes of them."""

from __future__ import annotations

import shutil

import av
import numpy as np
import pytest
import torch

from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import parse_model
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.errors import WeightsError
from ccl_cli.teachers import weights
from ccl_cli.teachers.waveform import Waveform
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher
from ccl_efficientat.network import mobilenet
from ccl_efficientat.sound import LogMel
from ccl_efficientat.teacher import EfficientAT
from tests.helpers.golden import assert_close

# What each of the ten classes of ESC-10 is called in AudioSet.
ESC10 = {
    "baby_cry": ("Baby cry, infant cry", "Crying, sobbing"),
    "chainsaw": ("Chainsaw",),
    "clock_tick": ("Clock", "Tick", "Tick-tock"),
    "dog_bark": ("Dog", "Bark"),
    "fire_crackling": ("Fire", "Crackle"),
    "helicopter": ("Helicopter",),
    "person_sneeze": ("Sneeze",),
    "rain": ("Rain", "Raindrop", "Rain on surface"),
    "rooster": ("Chicken, rooster", "Crowing, cock-a-doodle-doo"),
    "sea_waves": ("Ocean", "Waves, surf"),
}


def from_spec(text):
    return EfficientAT.from_spec(parse_model(text))


@pytest.fixture(scope="module")
def published(shared):
    return shared / "data" / "weights" / "efficientat_mn04_as_mAP_432.pt"


@pytest.fixture(scope="module")
def teacher(published, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCL_HOME", str(tmp_path_factory.mktemp("cache")))
        return from_spec(f"audio:efficientat_mn04@{published}?seconds=5")


def resampled_by_ffmpeg(path):
    """Samples as those of the reference were made: ours come from another resampler."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=32_000)
    with av.open(str(path)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    parts = [frame.to_ndarray()[0] for frame in (*frames, *resampler.resample(None))]
    return torch.from_numpy(np.concatenate(parts)[: 5 * 32_000])


def test_it_is_the_published_network_on_real_sounds(teacher, shared):
    with np.load(shared / "golden" / "efficientat_mn04.npz") as file:
        names, *golden = (file[key] for key in ("names", "logmel_first20", "embedding", "logits"))
    assert len(names) == 10
    for name, *expected in zip(names, *map(torch.from_numpy, golden), strict=True):
        x = resampled_by_ffmpeg(shared / "data" / "sounds" / str(name))[None]
        with torch.inference_mode():
            made = teacher.log_mel(x)[0, :, :20], teacher(x)[0], teacher.class_scores(x)[0]
        for one, other in zip(made, expected, strict=True):
            assert_close(one, other, 2e-5)


def heard(teacher, path):
    """What the loader's workers would give it of a file."""
    window = Window(Video(path.stem, path, 0, "test"), Clip())
    window.__dict__ |= {"start": 2.0, "end": 3.0}  # there is no picture to say so
    return teacher.preprocess(window)


@pytest.mark.slow
def test_it_names_real_sounds_without_having_been_trained_on_them(teacher, shared):
    """Zero-shot: one of a class's names in AudioSet is among the three that score highest, of all 527."""
    names, right, best = teacher.classes, [], []
    of_class = [[names.index(name) for name in own] for own in ESC10.values()]
    for label, folder in enumerate(ESC10):
        for path in sorted((shared / "data" / "sounds" / folder).glob("*.ogg")):
            with torch.inference_mode():
                (scores,) = teacher.class_probabilities(heard(teacher, path)[None])
            right.append(not set(scores.topk(3).indices.tolist()).isdisjoint(of_class[label]))
            best.append(max(range(10), key=lambda each: scores[of_class[each]].max()) == label)
    assert len(right) == 40
    assert np.mean(right) >= 0.8, np.mean(right)
    assert np.mean(best) >= 0.95, np.mean(best)  # the most probable one of these ten


def test_silence_and_loud_noise_have_finite_spectrograms():
    mel = LogMel()
    assert mel(torch.zeros(1, 3200)).shape == (1, 128, 10)
    assert mel(torch.zeros(1, 3200)).isfinite().all()
    assert mel(torch.ones(1, 3200).sign() * torch.tensor([1.0, -1.0]).repeat(1600)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "width", "dim", "million"),
    [("mn04", 0.4, 384, 0.983), ("mn10", 1.0, 960, 4.88), ("mn40", 4.0, 3840, 68.43)],
)
def test_each_width_has_as_many_parameters_as_are_published(name, width, dim, million):
    with torch.device("meta"):
        network = mobilenet(width, 527)
        teacher = from_spec(f"audio:efficientat_{name}?weights=random")
    assert sum(each.numel() for each in network.parameters()) / 1e6 == pytest.approx(million, rel=5e-3)
    assert teacher.dim == dim


def test_the_published_file_in_the_cache_is_checked_and_found(published):
    spec = parse_model("audio:efficientat_mn04")
    (file,) = EfficientAT.weight_files(spec)
    file.path.parent.mkdir(parents=True)
    shutil.copy(published, file.path)
    file.path.chmod(0o644)
    assert weights.pull(file) == file.path  # its bytes are the published ones
    teacher = EfficientAT.from_spec(spec)
    assert (teacher.variant, teacher.dim, teacher.random_weights) == ("mn04_as", 384, False)
    assert teacher.preprocess == Waveform(32_000, 10.0)
    with file.path.open("ab") as damaged:
        damaged.write(b"more")
    with pytest.raises(WeightsError, match="is not the published file"):
        weights.pull(file)


@pytest.mark.long
def test_it_can_be_fitted_to_the_sounds_of_a_data_set(published, tmp_path, monkeypatch):
    """A new last layer and a few passes over clips of ccl's own, whose classes sound differently."""
    from ccl_cli import registry
    from tests.helpers.plugin_folder import PLUGINS, install_project

    site = tmp_path / "site"
    install_project(site, PLUGINS / "ccl-efficientat")
    monkeypatch.syspath_prepend(str(site))
    assert registry.find(registry.TEACHERS, "audio:efficientat_mn04").distribution == "ccl-efficientat"
    spec = parse_model(f"audio:efficientat_mn04@{published}?seconds=1")
    report = fit_teacher(
        spec, "clips:toy", tmp_path / "own.safetensors", FitOptions(epochs=8, lr=1e-3, workers=0)
    )
    assert report.held_out.accuracy >= 2 / len(report.classes)
    fitted = from_spec(f"audio:efficientat_mn04@{report.path}")
    assert fitted.classes == report.classes
    assert fitted.preprocess.seconds == 1
    shares = fitted.class_probabilities(torch.rand(2, 32_000) - 0.5)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
