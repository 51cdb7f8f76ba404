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

import pytest
import torch

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import WeightsError
from ccl_cli.teachers.waveform import Waveform
from ccl_plugins.cnn14 import Cnn14
from tests.plugins.windows import make_window, sound


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


def test_weights_for_another_spectrogram_are_refused(tmp_path):
    teacher = Cnn14.from_spec(parse_model("audio:cnn14?weights=random"))
    state = teacher.state_dict() | {"logmel_extractor.melW": torch.zeros(513, 64)}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="another spectrogram"):
        Cnn14.from_spec(parse_model(f"audio:cnn14@{tmp_path}/other.pth"))


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
