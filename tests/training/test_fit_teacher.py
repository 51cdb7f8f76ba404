from __future__ import annotations

import logging
import shutil

import pytest
import timm
import torch
from safetensors.torch import save_file

from ccl_cli.__main__ import main
from ccl_cli.config.spec import parse_model
from ccl_cli.data.sources import synthetic
from ccl_cli.errors import CclError, DataError, PluginError, SystemSetupError, UsageError, WeightsError
from ccl_cli.teachers.fitted import default_path, read_fitted
from ccl_cli.training import fit_teacher as fitting
from ccl_cli.training.build import load_teacher
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher

SIZES = {"clips": 4, "test_clips": 2, "size": 24, "frames": 8}
BRIEF = FitOptions(epochs=1, batch_size=16, workers=0)
TINY = FitOptions(epochs=1, lr=1e-9, batch_size=40, workers=0)  # weights stay what they are


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data sets by label space, as one types them."""
    root = tmp_path_factory.mktemp("worlds")
    options = "&".join(f"{name}={value}" for name, value in SIZES.items())
    for labels in ("objects", "sounds"):
        synthetic.load(str(root / labels), labels=labels, **SIZES)
    return {
        labels: f"synthetic:{root / labels}?labels={labels}&{options}" for labels in ("objects", "sounds")
    }


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch):
    """Commands that run in this process set it up for a terminal."""
    monkeypatch.setattr(logging.getLogger("ccl"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("ccl"), "handlers", [])


@pytest.fixture
def folder(data, tmp_path):
    """A copy of the objects, as anybody's folder of videos; 40 for training, 20 for testing."""
    source = data["objects"].partition(":")[2].partition("?")[0]
    return shutil.copytree(source, tmp_path / "synthetic-objects")


def spoil(root, split, count):
    for path in sorted((root / split).rglob("*.mp4"))[:count]:
        path.write_bytes(b"no video")


def noise(teacher):
    x = torch.rand(3, *teacher.preprocess.shape, generator=torch.Generator().manual_seed(0))
    return (255 * x).to(torch.uint8) if teacher.preprocess.dtype == torch.uint8 else x - 0.5


@pytest.mark.slow
def test_a_fitted_teacher_tells_sounds_apart_and_comes_back_from_its_file(tmp_path):
    data = f"synthetic:{tmp_path / 'sounds'}?labels=sounds&clips=8&test_clips=2&size=24&frames=8"
    options = FitOptions(epochs=10, batch_size=16, workers=0)
    report = fit_teacher("audio:small?seconds=0.5", data, tmp_path / "a.safetensors", options)
    assert report.train.accuracy > 0.6
    assert report.held_out.accuracy > 0.4  # of 12 classes
    assert (report.held_out.split, report.held_out.videos) == ("test", 24)
    teacher = load_teacher(f"audio:small@{report.path}")
    assert not teacher.random_weights
    assert set(teacher.classes) == set(synthetic.world.EVENTS)
    assert teacher.preprocess.seconds == 0.5  # as it was fitted, though nobody typed it
    with torch.inference_mode():
        probabilities = teacher.class_probabilities(noise(teacher))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(data, tmp_path):
    files = []
    for number, (seed, workers) in enumerate(((3, 0), (3, 1), (4, 0))):
        options = FitOptions(epochs=1, batch_size=16, seed=seed, workers=workers)
        report = fit_teacher("image:small", data["objects"], tmp_path / f"{number}.safetensors", options)
        files.append(report.path.read_bytes())
    assert files[0] == files[1] != files[2]


def test_without_output_the_cache_keeps_it_where_the_bare_name_finds_it(data):
    """Each small teacher has a label space of its own: fitted to another, the bare name does not mean it."""
    path = fit_teacher("image:small", data["sounds"], None, BRIEF).path
    assert path == default_path("image", "small", "synthetic-sounds")
    with pytest.raises(WeightsError, match=r"image-small-synthetic-objects\.safetensors.*`ccl teachers fit"):
        load_teacher("image:small")
    fit_teacher("image:small?dim=16", data["objects"], None, BRIEF)
    assert load_teacher("image:small").dim == 16
    assert load_teacher("image:small?weights=synthetic-sounds").classes[0] == "beeps"
    with pytest.raises(WeightsError, match="does not fit"):
        load_teacher("image:small?dim=32")
    with pytest.raises(WeightsError, match=r"not fitted to 'birds'.*Run `ccl teachers fit image:small"):
        load_teacher("image:small?weights=birds")
    fit_teacher("audio:small", data["sounds"], None, BRIEF)
    assert load_teacher("audio:small").classes[0] == "beeps"


def test_going_on_from_what_the_cache_holds(data):
    """By the data set's name, as documented: with the options and the weights of that file."""
    fit_teacher("image:small?dim=8&size=24", data["objects"], None, BRIEF)
    spec = parse_model("image:small?weights=synthetic-objects")
    before = load_teacher(spec)
    path = fit_teacher(spec, data["sounds"], None, TINY).path
    assert read_fitted(path).options == {"dim": 8, "size": 24}
    after = load_teacher("image:small?weights=synthetic-sounds")
    assert (after.dim, after.preprocess.size) == (8, (24, 24))
    weights = [teacher.state_dict()["blocks.3.0.weight"] for teacher in (after, before)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])
def test_a_timm_network_is_adapted_to_a_domain(data, tmp_path, network):
    """From trained weights with other classes: a file as timm publishes them."""
    trained = timm.create_model(network, num_classes=7)
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    size = "" if network == "test_vit" else "?size=32"
    spec = f"image:{network}@{tmp_path / 'trained.safetensors'}{size}"
    path = fit_teacher(spec, data["objects"], tmp_path / "t.safetensors", TINY).path
    teacher = load_teacher(f"image:{network}@{path}")
    assert teacher.classes == tuple("0123456789")
    assert teacher.preprocess == load_teacher(spec).preprocess
    own = dict(teacher.network.named_parameters())
    for name, value in trained.named_parameters():
        if own[name].shape == value.shape:  # not the classifier's
            torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-6)
    with torch.inference_mode():
        assert teacher.class_probabilities(noise(teacher)).shape == (3, 10)


def test_cnn14_starts_from_published_weights(data, tmp_path, monkeypatch):
    from ccl_plugins import cnn14

    monkeypatch.setattr(cnn14, "_WIDTHS", (1, 8, 8, 16, 16, 32, 64))  # the real one weighs 300 MB
    published = cnn14.Cnn14.from_spec(parse_model("audio:cnn14?weights=random"))
    path = tmp_path / "Cnn14_emb512_mAP=0.420.pth"
    front_end = {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024)}
    torch.save({"iteration": 1, "model": published.state_dict() | front_end}, path)
    spec = f"audio:cnn14@{path}?seconds=0.31"
    report = fit_teacher(spec, data["sounds"], tmp_path / "c.safetensors", TINY)
    teacher = load_teacher(f"audio:cnn14@{report.path}")
    assert len(teacher.classes) == 12
    own, old = dict(teacher.named_parameters()), dict(published.named_parameters())
    assert all(torch.allclose(own[name], old[name], atol=1e-6) for name in own if "audioset" not in name)


# ---- which videos are looked at


def test_videos_that_cannot_be_read_are_counted_and_told(folder, tmp_path, caplog):
    spoil(folder, "train", 1)
    spoil(folder, "test", 1)
    rows = [f"{path},{path.parent.name},{path.parents[1].name}" for path in sorted(folder.rglob("*.mp4"))]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label,split", *rows, "absent.mp4,9,train"]))
    report = fit_teacher("image:small", f"csv:{table}", tmp_path / "a.safetensors", BRIEF)
    train, test = (message for message in caplog.messages if "left out" in message)
    assert train.startswith("2 of 41 train videos are left out")
    assert "absent.mp4' is not there." in train
    assert test.startswith("1 of 20 test videos are left out")
    assert report.held_out.videos == 19


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("test", 2)])
def test_too_many_videos_that_cannot_be_read_stop_it(folder, tmp_path, split, count):
    spoil(folder, split, count)
    with pytest.raises(DataError, match=f"{count} of .* videos of the {split} split"):
        fit_teacher("image:small", f"folder:{folder}", tmp_path / "a.safetensors", BRIEF)
    assert not (tmp_path / "a.safetensors").exists()


# ---- refusals leave no file behind


def test_files_of_other_teachers_are_refused(data, tmp_path):
    path = fit_teacher("image:small", data["objects"], tmp_path / "i.safetensors", BRIEF).path
    with pytest.raises(WeightsError, match="fitted as image:small, not as image:resnet18"):
        load_teacher(f"image:resnet18@{path}")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match="does not fit image:small"):
        load_teacher(f"image:small@{foreign}")
    foreign.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_teacher(f"image:small@{foreign}")


@pytest.mark.parametrize(
    ("teacher", "output", "options", "error", "match"),
    [
        ("image:precomputed@{clips}/image.npz", "a.safetensors", BRIEF, PluginError, "nothing to train"),
        ("audio:small", "a.safetensors", BRIEF, DataError, "No training video of .* the modality of audio"),
        ("image:small", "a.pth", BRIEF, UsageError, r"does not end in \.safetensors"),
        ("image:small", "file/a.safetensors", BRIEF, SystemSetupError, "Cannot write"),
        ("image:small", "a.safetensors", FitOptions(epochs=3, lr=1e30, workers=0), CclError, "not finite"),
    ],
)
def test_what_cannot_be_fitted(data, tmp_path, clips_folder, teacher, output, options, error, match):
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match=match):
        fit_teacher(teacher.format(clips=clips_folder), data["objects"], tmp_path / output, options)
    assert not list(tmp_path.glob("*.safetensors*"))


def test_the_command(data, tmp_path, capsys, monkeypatch):
    command = ["teachers", "fit", "audio:small", "--data", data["sounds"], "--workers", "0", "--epochs", "1"]
    path = tmp_path / "a.safetensors"
    assert main([*command, "--output", str(path), "--batch-size", "16", "--seed", "2"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}\n"
    assert "on 24 videos" in said.err
    assert f"--teacher audio:small@{path}" in said.err
    assert main([*command, "--lr", "0"]) == 2
    assert "--lr must be above 0" in capsys.readouterr().err

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting._Session, "_step", interrupted)
    assert main([*command, "--output", str(tmp_path / "out" / "a.safetensors")]) == 130
    assert list((tmp_path / "out").iterdir()) == []
