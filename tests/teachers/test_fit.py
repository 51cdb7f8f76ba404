from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ccl_cli import registry
from ccl_cli.__main__ import main
from ccl_cli.data.sources import synthetic
from ccl_cli.engine.build import load_teacher
from ccl_cli.errors import CclError, DataError, EnvironmentError_, PluginError, UsageError, WeightsError
from ccl_cli.spec import parse_model
from ccl_cli.teachers import fit as fitting
from ccl_cli.teachers.fit import FitOptions, fit
from ccl_cli.teachers.fitted import default_path, read_fitted

SIZES = {"clips": 8, "test_clips": 2, "size": 24, "frames": 8}
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
def _our_entry_points(monkeypatch):
    """The teachers are found whether or not this checkout was installed again since they were added."""
    real = registry.scan()
    known = {(plugin.group, plugin.name) for plugin in real.plugins}
    new = [
        registry.Plugin(
            registry.TEACHERS, f"{kind}.small", f"ccl_plugins.small:Small{kind.title()}", "ccl-cli", "0"
        )
        for kind in ("audio", "image")
    ] + [
        registry.Plugin(registry.DATASETS, "synthetic", "ccl_cli.data.sources.synthetic:load", "ccl-cli", "0")
    ]
    added = tuple(plugin for plugin in new if (plugin.group, plugin.name) not in known)
    monkeypatch.setattr(registry, "scan", lambda: real._replace(plugins=real.plugins + added))


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["ccl"])


def noise(teacher, count=3):
    x = torch.rand(count, *teacher.preprocess.shape, generator=torch.Generator().manual_seed(0))
    return (255 * x).to(torch.uint8) if teacher.preprocess.dtype == torch.uint8 else x - 0.5


def test_a_fitted_teacher_tells_sounds_apart_and_comes_back_from_its_file(data, tmp_path):
    report = fit(
        parse_model("audio:small?seconds=0.5"),
        data["sounds"],
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


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(data, tmp_path):
    paths = []
    for number, (seed, workers) in enumerate(((3, 0), (3, 1), (4, 0))):
        options = FitOptions(epochs=1, batch_size=16, seed=seed, workers=workers)
        paths.append(
            fit(parse_model("image:small"), data["objects"], tmp_path / f"{number}.safetensors", options).path
        )
    one, again, other = (path.read_bytes() for path in paths)
    assert one == again
    assert one != other


def test_without_output_the_cache_keeps_it_where_the_bare_name_finds_it(data):
    with pytest.raises(WeightsError) as missing:
        load_teacher(parse_model("image:small"))
    assert "image-small-synthetic.safetensors" in str(missing.value)
    assert "`ccl teachers fit image:small --data 'synthetic?labels=objects'`" in str(missing.value)
    report = fit(parse_model("image:small?dim=16"), data["objects"], None, BRIEF)
    assert report.path == default_path("image", "small", "synthetic")
    assert load_teacher(parse_model("image:small")).dim == 16
    assert load_teacher(parse_model("image:small?weights=synthetic")).dim == 16
    with pytest.raises(WeightsError, match="does not fit"):
        load_teacher(parse_model("image:small?dim=32"))
    with pytest.raises(WeightsError, match="your data"):
        load_teacher(parse_model("image:small?weights=birds"))


def test_going_on_from_a_file_keeps_its_network(data, tmp_path):
    first = fit(parse_model("image:small?dim=8"), data["objects"], tmp_path / "1.safetensors", BRIEF)
    spec = parse_model(f"image:small@{first.path}")
    start = fitting.registry.load(registry.find(registry.TEACHERS, "image:small")).to_fit(spec, ("a", "b"))
    before = load_teacher(spec)
    assert torch.equal(start(noise(start)), before(noise(before)))
    assert start.class_scores(noise(start)).shape == (3, 2)
    tiny = FitOptions(epochs=1, lr=1e-9, batch_size=16, workers=0)
    second = fit(spec, data["objects"], tmp_path / "2.safetensors", tiny)
    after = load_teacher(parse_model(f"image:small@{second.path}"))
    assert after.dim == 8
    for name in ("blocks.0.0.weight", "blocks.3.0.weight"):
        torch.testing.assert_close(after.state_dict()[name], before.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_a_timm_network_is_adapted_to_a_domain(data, tmp_path):
    name = "image:test_resnet?size=32&weights=random"
    report = fit(parse_model(name), data["objects"], tmp_path / "t.safetensors", BRIEF)
    teacher = load_teacher(parse_model(f"image:test_resnet@{report.path}"))
    assert (teacher.classes, teacher.preprocess.size) == (tuple("0123456789"), (32, 32))
    assert not teacher.random_weights
    with torch.inference_mode():
        assert teacher.class_probabilities(noise(teacher)).shape == (3, 10)
    again = fit(
        parse_model(f"image:test_resnet@{report.path}"), data["objects"], tmp_path / "u.safetensors", BRIEF
    )
    assert read_fitted(again.path).options == {"size": 32}


def test_cnn14_takes_new_classes_and_its_file_back(tmp_path, monkeypatch):
    from ccl_cli.teachers.fitted import Fitted, save_fitted
    from ccl_plugins import cnn14

    monkeypatch.setattr(cnn14, "_WIDTHS", (1, 4, 4, 4, 4, 4, 8))  # the real one weighs 300 MB
    spec = parse_model("audio:cnn14?weights=random&seconds=0.31")
    teacher = cnn14.Cnn14.to_fit(spec, ("bark", "purr"))
    path = tmp_path / "c.safetensors"
    fitted = Fitted("audio:cnn14", ("bark", "purr"), {"seconds": 0.31}, 512, repr(teacher.preprocess))
    save_fitted(path, fitted, teacher.own_weights())
    again = cnn14.Cnn14.from_spec(parse_model(f"audio:cnn14@{path}"))
    assert (again.classes, again.preprocess) == (("bark", "purr"), teacher.preprocess)
    x = noise(again)
    with torch.inference_mode():
        assert torch.equal(again(x), teacher(x))
        torch.testing.assert_close(again.class_probabilities(x).sum(dim=1), torch.ones(3))


# ---- what is wrong is a sentence, and no file is left behind


def test_files_of_other_teachers_are_refused(data, tmp_path):
    path = fit(parse_model("image:small"), data["objects"], tmp_path / "i.safetensors", BRIEF).path
    with pytest.raises(WeightsError, match="fitted as image:small, not as image:resnet18"):
        load_teacher(parse_model(f"image:resnet18@{path}"))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match="did not write"):
        load_teacher(parse_model(f"image:small@{foreign}"))
    foreign.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_teacher(parse_model(f"image:small@{foreign}"))


def test_what_cannot_be_fitted(data, tmp_path, clips_folder):
    with pytest.raises(PluginError, match="nothing to train"):
        fit(parse_model(f"image:precomputed@{clips_folder / 'image.npz'}"), data["objects"])
    with pytest.raises(DataError, match="No training video of 'synthetic' has what audio:small looks at"):
        fit(parse_model("audio:small"), data["objects"], tmp_path / "a.safetensors", BRIEF)
    with pytest.raises(UsageError, match=r"saved as \.safetensors"):
        fit(parse_model("image:small"), data["objects"], tmp_path / "a.pth", BRIEF)
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentError_, match="Cannot write"):
        fit(parse_model("image:small"), data["objects"], tmp_path / "file" / "a.safetensors", BRIEF)
    assert not (tmp_path / "a.safetensors").exists()


def test_a_loss_that_explodes_is_told(data, tmp_path):
    options = FitOptions(epochs=3, lr=1e30, batch_size=16, workers=0)
    with pytest.raises(CclError, match="not finite"):
        fit(parse_model("image:small"), data["objects"], tmp_path / "a.safetensors", options)
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
    assert "of 24 videos right" in said.err
    assert f"--teacher audio:small@{path}" in said.err
    assert main([*command, "--lr", "0"]) == 2
    assert "--lr must be above 0" in capsys.readouterr().err
