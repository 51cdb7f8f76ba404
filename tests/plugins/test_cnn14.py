from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import tempfile
import types
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers.waveform import Waveform
from ccl_plugins import cnn14
from ccl_plugins.cnn14 import Cnn14
from tests.plugins.windows import make_window


def sound(samples, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32))


@functools.cache
def reference_networks():
    """The module of the reference network; its package downloads class names when it is imported whole."""
    found = importlib.util.find_spec("panns_inference")
    assert found is not None, "the dev extra installs panns-inference, the reference network"
    package = types.ModuleType("panns_inference")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["panns_inference"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("panns_inference.models")


@pytest.fixture(scope="module", params=[512, 2048])
def published(request):
    """The reference network, random but with statistics like those of sound, and its state as published."""
    dim = request.param
    models = reference_networks()
    torch.manual_seed(dim)
    with mock.patch("torch.nn.init.kaiming_uniform_"):  # the network initialises its layers a second time
        network = models.Cnn14(32000, 1024, 320, 64, 50, 14000, 527)
    if dim != 2048:
        network.fc1, network.fc_audioset = torch.nn.Linear(2048, dim), torch.nn.Linear(dim, 527)
    for name, buffer in network.named_buffers():
        scale = 20 if name.startswith("bn0") else 0.3
        if name.endswith("running_mean"):
            buffer.copy_(scale * torch.randn(buffer.shape))
        elif name.endswith("running_var"):
            buffer.copy_(scale * (1 + torch.rand(buffer.shape)))
    with tempfile.TemporaryDirectory() as folder:  # 300 MB: gone at the end, unlike pytest's own folders
        path = Path(folder) / "Cnn14.pth"
        torch.save({"iteration": 1, "model": network.state_dict()}, path)
        yield dim, network.eval(), path


@pytest.mark.slow
def test_it_is_the_reference_network(published, monkeypatch):
    dim, network, path = published
    monkeypatch.setenv("CCL_HOME", str(path.parent / "cache"))
    teacher = Cnn14.from_spec(parse_model(f"audio:cnn14@{path}?dim={dim}&seconds=0.5"))
    assert not teacher.random_weights
    x = torch.stack([loud * sound(16_000, seed) for seed, loud in enumerate((1, 0.01, 0.1, 1, 0.3, 0.02))])
    with torch.inference_mode():
        expected = network(x)
        torch.testing.assert_close(teacher(x), expected["embedding"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            teacher.class_probabilities(x), expected["clipwise_output"], rtol=1e-4, atol=1e-4
        )
    assert expected["embedding"].std(dim=0).max() > 0.01  # it tells the sounds apart
    other = {512: 2048, 2048: 512}[dim]
    with pytest.raises(WeightsError, match=rf"contains the {dim}-d CNN14.*dim={dim}"):
        Cnn14.from_spec(parse_model(f"audio:cnn14@{path}?dim={other}"))


@pytest.fixture(scope="module")
def teacher():
    return Cnn14.from_spec(parse_model("audio:cnn14?weights=random&seconds=1"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logmel_extractor.melW": torch.zeros(513, 64)}, "another spectrogram"),
        ({"fc_audioset.weight": torch.zeros(50, 512)}, r"is not a CNN14.*fc_audioset\.weight"),
        ({"bn0.weight": None}, r"is not a CNN14.*bn0\.weight"),
        ({"conv_block7.conv1.weight": torch.zeros(1)}, r"is not a CNN14.*conv_block7"),
    ],
)
def test_other_networks_are_refused(teacher, tmp_path, change, said, monkeypatch):
    state = {name: value for name, value in (teacher.state_dict() | change).items() if value is not None}
    monkeypatch.setattr(cnn14, "load_state", lambda path: state)
    path = tmp_path / "other.pth"
    path.touch()
    with pytest.raises(WeightsError, match=said) as caught:
        Cnn14.from_spec(parse_model(f"audio:cnn14@{path}"))
    assert caught.value.exit_code == 6


def test_half_precision_and_missing_counters_are_fine(teacher, tmp_path, monkeypatch):
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in teacher.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    monkeypatch.setattr(cnn14, "load_state", lambda path: state)
    path = tmp_path / "half.pth"
    path.touch()
    half = Cnn14.from_spec(parse_model(f"audio:cnn14@{path}?seconds=1"))
    assert half.fc1.weight.dtype == torch.float32
    torch.testing.assert_close(half.fc1.weight, teacher.fc1.weight, rtol=1e-3, atol=1e-4)
    assert half.conv_block1.bn1.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("dim", "name"), [(512, "Cnn14_emb512_mAP=0.420.pth"), (2048, "Cnn14_mAP=0.431.pth")]
)
def test_never_random_unasked(tmp_path, dim, name):
    spec = parse_model(f"audio:cnn14?dim={dim}")
    with pytest.raises(WeightsError) as caught:
        Cnn14.from_spec(spec)
    assert str(tmp_path / "cache" / "weights" / name) in str(caught.value)
    assert "ccl teachers pull" in str(caught.value)
    (file,) = Cnn14.weight_files(spec)
    assert file.filename == name
    assert file.url.startswith("https://zenodo.org/")
    assert file.checksum
    for own in ("@own.pth", "?weights=random"):
        assert not Cnn14.weight_files(parse_model(f"audio:cnn14{own}"))


@pytest.mark.parametrize(
    "options", ["dim=128", "seconds=0.3", "seconds=-1", "weights=no", "dims=512", "weights=random@"]
)
def test_bad_options(options):
    text = f"audio:cnn14?{options}" if "@" not in options else "audio:cnn14@x.pth?weights=random"
    with pytest.raises(PluginError):
        Cnn14.from_spec(parse_model(text))


def test_short_tracks_are_repeated_and_none_is_missing():
    samples = sound(12_000)
    value = Waveform(seconds=1)(make_window(sound=samples))
    assert torch.equal(value, torch.cat([samples, samples, samples])[:32_000])
    assert Waveform(seconds=1)(make_window(sound=None)) is None


def test_batch_norm_learns_from_a_whole_batch():
    teacher = Cnn14.from_spec(parse_model("audio:cnn14?weights=random&seconds=0.5"))
    torch.nn.Module.train(teacher)  # as fitting it to a data set does
    with torch.no_grad():
        teacher(torch.stack([sound(16_000, seed) for seed in range(6)]))
    counts = {name: int(value) for name, value in teacher.named_buffers() if name.endswith("tracked")}
    assert len(counts) == 13
    assert set(counts.values()) == {1}


def test_class_names():
    names = cnn14.audioset_classes()
    assert len(names) == len(set(names)) == 527
    assert (names[0], names[1], names[-1]) == ("Speech", "Male speech, man speaking", "Field recording")
