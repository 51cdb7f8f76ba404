from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ccl_cli import registry
from ccl_cli.__main__ import main
from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import synthetic
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import CclError, DataError, PluginError, SystemSetupError, UsageError, WeightsError
from ccl_cli.teachers.fitted import default_path, read_fitted
from ccl_cli.training import fit_teacher as fitting
from ccl_cli.training.build import load_teacher
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher

SIZES = {"clips": 4, "test_clips": 2, "size": 24, "frames": 8}
BRIEF = FitOptions(epochs=1, batch_size=16, workers=0)


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
    logger = logging.getLogger("ccl")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])


@pytest.fixture
def folder(data, tmp_path):
    """A copy of the objects, as anybody's folder of videos; 40 for training, 20 for testing."""
    root = tmp_path / "things"
    shutil.copytree(data["objects"].partition(":")[2].partition("?")[0], root)
    return root


def spoil(root, split, count):
    for path in sorted((root / split).rglob("*.mp4"))[:count]:
        path.write_bytes(b"no video")


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["ccl"])


def noise(teacher, count=3):
    x = torch.rand(count, *teacher.preprocess.shape, generator=torch.Generator().manual_seed(0))
    return (255 * x).to(torch.uint8) if teacher.preprocess.dtype == torch.uint8 else x - 0.5


@pytest.mark.slow
def test_a_fitted_teacher_tells_sounds_apart_and_comes_back_from_its_file(tmp_path):
    data = f"synthetic:{tmp_path / 'sounds'}?labels=sounds&clips=8&test_clips=2&size=24&frames=8"
    report = fit_teacher(
        parse_model("audio:small?seconds=0.5"),
        data,
        tmp_path / "a.safetensors",
        FitOptions(epochs=10, batch_size=16, workers=0),
    )
    assert report.train.accuracy > 0.6
    assert report.held_out.accuracy > 0.4  # of 12 classes
    assert (report.held_out.split, report.held_out.videos) == ("test", 24)
    teacher = load_teacher(parse_model(f"audio:small@{report.path}"))
    assert not teacher.random_weights
    assert set(teacher.classes) == set(synthetic.world.EVENTS)
    assert teacher.preprocess.seconds == 0.5  # as it was fitted, though nobody typed it
    with torch.inference_mode():
        embedding, probabilities = teacher(noise(teacher)), teacher.class_probabilities(noise(teacher))
    assert embedding.shape == (3, 64)
    assert embedding.min() >= 0
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))
    said = header(report.path)
    assert (said["teacher"], said["dim"], said["options"]) == ("audio:small", 64, {"seconds": 0.5})
    assert said["accuracy"] == {"test": report.held_out.accuracy}
    assert "16000" in said["preprocess"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(data, tmp_path):
    paths = []
    for number, (seed, workers) in enumerate(((3, 0), (3, 1), (4, 0))):
        options = FitOptions(epochs=1, batch_size=16, seed=seed, workers=workers)
        paths.append(
            fit_teacher(
                parse_model("image:small"), data["objects"], tmp_path / f"{number}.safetensors", options
            ).path
        )
    one, again, other = (path.read_bytes() for path in paths)
    assert one == again
    assert one != other


def test_without_output_the_cache_keeps_it_where_the_bare_name_finds_it(data):
    with pytest.raises(WeightsError) as missing:
        load_teacher(parse_model("image:small"))
    assert "image-small-synthetic-objects.safetensors" in str(missing.value)
    assert "`ccl teachers fit image:small --data 'synthetic?labels=objects'`" in str(missing.value)
    report = fit_teacher(parse_model("image:small?dim=16"), data["objects"], None, BRIEF)
    assert report.path == default_path("image", "small", "synthetic-objects")
    assert load_teacher(parse_model("image:small")).dim == 16
    assert load_teacher(parse_model("image:small?weights=synthetic-objects")).dim == 16
    with pytest.raises(WeightsError, match="does not fit"):
        load_teacher(parse_model("image:small?dim=32"))
    with pytest.raises(WeightsError, match=r"not fitted to 'birds'.*Run `ccl teachers fit image:small"):
        load_teacher(parse_model("image:small?weights=birds"))


def test_each_small_teacher_has_label_space_of_its_own(data):
    """Fitted to what another teacher is for, it is not what the bare name means."""
    fit_teacher(parse_model("image:small"), data["sounds"], None, BRIEF)
    with pytest.raises(WeightsError, match="image-small-synthetic-objects"):
        load_teacher(parse_model("image:small"))
    assert load_teacher(parse_model("image:small?weights=synthetic-sounds")).classes[0] == "beeps"
    path = fit_teacher(parse_model("audio:small"), data["sounds"], None, BRIEF).path
    assert path == default_path("audio", "small", "synthetic-sounds")
    assert load_teacher(parse_model("audio:small")).classes[0] == "beeps"


def test_replacing_what_was_fitted_to_other_data_is_told(data, folder, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    folder = folder.rename(tmp_path / "synthetic-objects")  # of the same name, as it happens
    path = fit_teacher(parse_model("image:small"), data["objects"], None, BRIEF).path
    fit_teacher(parse_model("image:small"), f"folder:{folder}", None, BRIEF)
    assert not caplog.messages  # the same videos
    next(folder.rglob("*.mp4")).unlink()
    assert fit_teacher(parse_model("image:small"), f"folder:{folder}", None, BRIEF).path == path
    assert f"'{path}' was fitted to other data" in caplog.messages[0]
    path.write_bytes(b"damaged")
    fit_teacher(parse_model("image:small"), data["objects"], None, BRIEF)
    assert len(caplog.messages) == 1


def test_going_on_from_what_the_cache_holds(data):
    """By the data set's name, as documented: with the options and the weights of that file."""
    fit_teacher(parse_model("image:small?dim=8&size=24"), data["objects"], None, BRIEF)
    spec = parse_model("image:small?weights=synthetic-objects")
    before = load_teacher(spec)
    start = fitting.registry.load(registry.find(registry.TEACHERS, "image:small")).to_fit(spec, ("a", "b"))
    assert torch.equal(start(noise(start)), before(noise(before)))
    assert start.class_scores(noise(start)).shape == (3, 2)
    tiny = FitOptions(epochs=1, lr=1e-9, batch_size=16, workers=0)
    path = fit_teacher(spec, data["sounds"], None, tiny).path
    assert read_fitted(path).options == {"dim": 8, "size": 24}
    after = load_teacher(parse_model("image:small?weights=synthetic-sounds"))
    assert (after.dim, after.preprocess.size) == (8, (24, 24))
    name = "blocks.3.0.weight"
    torch.testing.assert_close(after.state_dict()[name], before.state_dict()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])
def test_a_timm_network_is_adapted_to_a_domain(data, tmp_path, network):
    """From trained weights with other classes: a file as timm publishes them."""
    trained = timm.create_model(network, num_classes=7)
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    size = "" if network == "test_vit" else "?size=32"
    spec = parse_model(f"image:{network}@{tmp_path / 'trained.safetensors'}{size}")
    tiny = FitOptions(epochs=1, lr=1e-9, batch_size=40, workers=0)
    path = fit_teacher(spec, data["objects"], tmp_path / "t.safetensors", tiny).path
    teacher = load_teacher(parse_model(f"image:{network}@{path}"))
    assert teacher.classes == tuple("0123456789")
    assert teacher.preprocess == load_teacher(spec).preprocess
    assert not teacher.random_weights
    own = dict(teacher.network.named_parameters())
    for name, value in trained.named_parameters():
        if own[name].shape == value.shape:  # not the classifier's
            torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-6)
    with torch.inference_mode():
        assert teacher.class_probabilities(noise(teacher)).shape == (3, 10)


@pytest.fixture
def narrow_cnn14(monkeypatch):
    """The whole of CNN14, but with few channels: the real one weighs 300 MB."""
    from ccl_plugins import cnn14

    monkeypatch.setattr(cnn14, "_WIDTHS", (1, 8, 8, 16, 16, 32, 64))
    return cnn14.Cnn14


def test_cnn14_starts_from_published_weights(data, tmp_path, narrow_cnn14):
    published = narrow_cnn14.from_spec(parse_model("audio:cnn14?weights=random"))
    path = tmp_path / "Cnn14_emb512_mAP=0.420.pth"
    front_end = {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024)}
    torch.save({"iteration": 1, "model": published.state_dict() | front_end}, path)
    tiny = FitOptions(epochs=1, lr=1e-9, batch_size=40, workers=0)
    report = fit_teacher(
        parse_model(f"audio:cnn14@{path}?seconds=0.31"), data["sounds"], tmp_path / "c.safetensors", tiny
    )
    teacher = load_teacher(parse_model(f"audio:cnn14@{report.path}"))
    assert len(teacher.classes) == 12
    own, old = dict(teacher.named_parameters()), dict(published.named_parameters())
    assert all(torch.allclose(own[name], old[name], atol=1e-6) for name in own if "audioset" not in name)


# ---- which videos are looked at


def test_the_held_out_score_is_that_on_the_middle_of_each_video(tmp_path, monkeypatch):
    videos = []
    for number in range(5):
        frames = np.full((9, 32, 32, 3), 10, np.uint8) * np.arange(9, dtype=np.uint8)[:, None, None, None]
        write_clip(tmp_path / f"{number}.mp4", 2 * frames, 8)
        videos.append(Video(str(number), tmp_path / f"{number}.mp4", number % 2, "test"))
    teacher = registry.load(registry.find(registry.TEACHERS, "image:small")).to_fit(
        parse_model("image:small"), ("a", "b")
    )
    seen = []
    monkeypatch.setattr(teacher, "class_scores", lambda x: seen.append(x) or torch.eye(2)[[0] * len(x)])
    options = FitOptions(batch_size=2, workers=0)
    score = fitting._Session(
        parse_model("image:small"), teacher, Manifest("x", ("a", "b"), tuple(videos)), options
    ).held_out()
    assert score == fitting.Score("test", 3 / 5, 5)  # each of them once
    for batch in seen:
        assert (batch.float().mean(dim=(1, 2, 3)) - 80).abs().max() < 4


def test_videos_that_cannot_be_read_are_counted_and_told(folder, tmp_path, caplog):
    spoil(folder, "train", 1)
    spoil(folder, "test", 1)
    rows = [f"{path},{path.parent.name},{path.parents[1].name}" for path in sorted(folder.rglob("*.mp4"))]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label,split", *rows, "absent.mp4,9,train"]))
    report = fit_teacher(parse_model("image:small"), f"csv:{table}", tmp_path / "a.safetensors", BRIEF)
    train, test = (message for message in caplog.messages if "left out" in message)
    assert train.startswith("2 of 41 train videos are left out, because they cannot be read: '")
    assert train.endswith("absent.mp4' is not there.")
    assert test.startswith("1 of 20 test videos are left out, because they cannot be read: '")
    assert "is not a complete media file" in test
    assert report.held_out.videos == 19


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("test", 2)])
def test_too_many_videos_that_cannot_be_read_stop_it(folder, tmp_path, split, count):
    spoil(folder, split, count)
    with pytest.raises(DataError) as stopped:
        fit_teacher(parse_model("image:small"), f"folder:{folder}", tmp_path / "a.safetensors", BRIEF)
    assert f"{count} of {40 if split == 'train' else 20} videos of the {split} split" in str(stopped.value)
    assert "--set" not in str(stopped.value)  # the command has no such option
    assert not (tmp_path / "a.safetensors").exists()


# ---- what is wrong is a sentence, and no file is left behind


def test_files_of_other_teachers_are_refused(data, tmp_path):
    path = fit_teacher(parse_model("image:small"), data["objects"], tmp_path / "i.safetensors", BRIEF).path
    with pytest.raises(WeightsError, match="fitted as image:small, not as image:resnet18"):
        load_teacher(parse_model(f"image:resnet18@{path}"))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match="does not fit image:small"):
        load_teacher(parse_model(f"image:small@{foreign}"))
    foreign.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_teacher(parse_model(f"image:small@{foreign}"))


def test_what_cannot_be_fitted(data, tmp_path, clips_folder):
    with pytest.raises(PluginError, match="nothing to train"):
        fit_teacher(parse_model(f"image:precomputed@{clips_folder / 'image.npz'}"), data["objects"])
    with pytest.raises(
        DataError, match="No training video of 'synthetic-objects' has the modality of audio:small"
    ):
        fit_teacher(parse_model("audio:small"), data["objects"], tmp_path / "a.safetensors", BRIEF)
    with pytest.raises(UsageError, match=r"does not end in \.safetensors"):
        fit_teacher(parse_model("image:small"), data["objects"], tmp_path / "a.pth", BRIEF)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemSetupError, match="Cannot write"):
        fit_teacher(parse_model("image:small"), data["objects"], tmp_path / "file" / "a.safetensors", BRIEF)
    assert not (tmp_path / "a.safetensors").exists()


def test_a_loss_that_explodes_is_told(data, tmp_path):
    options = FitOptions(epochs=3, lr=1e30, batch_size=16, workers=0)
    with pytest.raises(CclError, match="not finite"):
        fit_teacher(parse_model("image:small"), data["objects"], tmp_path / "a.safetensors", options)
    assert not list(tmp_path.glob("*.safetensors*"))


def test_ctrl_c_leaves_nothing(data, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting._Session, "_step", interrupted)
    out = tmp_path / "out"
    command = ["teachers", "fit", "image:small", "--data", data["objects"], "--workers", "0"]
    assert main([*command, "--output", str(out / "a.safetensors")]) == 130
    assert list(out.iterdir()) == []


def test_the_command(data, tmp_path, capsys):
    command = ["teachers", "fit", "audio:small", "--data", data["sounds"], "--workers", "0", "--epochs", "1"]
    path = tmp_path / "a.safetensors"
    assert main([*command, "--output", str(path), "--batch-size", "16", "--seed", "2"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}\n"
    assert "on 24 videos" in said.err
    assert f"--teacher audio:small@{path}" in said.err
    assert main([*command, "--lr", "0"]) == 2
    assert "--lr must be above 0" in capsys.readouterr().err
