from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ccl_cli import registry
from ccl_cli.config.load import to_yaml
from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.data.clips.transforms import eval_view
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.reader import read_frames
from ccl_cli.deploy import example_clips, export
from ccl_cli.deploy.example_clips import find_examples, some_clips
from ccl_cli.deploy.export import export_model
from ccl_cli.deploy.onnx import Deployed, open_onnx, open_torch, trace, write_onnx
from ccl_cli.errors import DataError, PluginError, RecipeError, SystemSetupError
from ccl_cli.evaluation.model import load_student
from ccl_cli.students import Student
from ccl_cli.training.build import make_student
from ccl_cli.training.run.artefact import load_model, save_model
from ccl_cli.training.run.folder import MANIFEST, MODEL, RECIPE

CLASSES = ("right <b>", "down\n'\"é")
CLIP = {"frames": 4, "size": 16, "short_side": 16, "mean": (0.5, 0.1, 0.3), "std": (0.2, 0.3, 0.4)}


@pytest.fixture(scope="module")
def run(clips_folder, tmp_path_factory) -> Path:
    """A run folder whose student is not trained, but tells videos apart."""
    folder = tmp_path_factory.mktemp("a run")
    manifest = replace(load_data(f"folder:{clips_folder / 'set'}"), classes=CLASSES)
    recipe = Recipe(student="r2plus1d_tiny@/home/me/weights.pth", clip=CLIP)
    torch.manual_seed(0)
    student = make_student("r2plus1d_tiny", len(CLASSES)).eval()
    clips = some_clips(manifest.videos, recipe.clip, len(manifest.videos))
    with torch.no_grad():
        student.classifier.weight.mul_(100)
        logits = student(by_hand(clips)).logits
        student.classifier.bias.copy_(-logits.median(dim=0).values)
    manifest.save(folder / MANIFEST)
    save_model(folder / MODEL, student, recipe, CLASSES, manifest=manifest.hash, step=7)
    (folder / RECIPE).write_text(to_yaml(recipe))
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Everything that can be asked for, and what the command knows of it."""
    folder = tmp_path_factory.mktemp("outputs") / "exported"
    return folder, export_model(run, folder, int8=True)


def by_hand(clips: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(CLIP[key], dtype=torch.float64).view(3, 1, 1, 1) for key in ("mean", "std"))
    return ((clips.double() / 255 - mean) / std).float()


def expected(run: Path, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        output = load_model(run / MODEL).student(by_hand(clips))
    return {"logits": output.logits, "feature": output.feature}


def noise(batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, 3, 4, 16, 16), dtype=torch.uint8, generator=generator)


def test_the_folder_holds_the_files_and_what_was_compared(exported):
    folder, result = exported
    assert {path.name for path in folder.iterdir()} == {*export.FILES.values(), "export.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["exported"]
    assert json.loads((folder / "export.json").read_text()) == json.loads(json.dumps(result))
    assert result["bytes"] == {name: (folder / file).stat().st_size for name, file in export.FILES.items()}
    assert (result["clips"], list(result["batches"])) == ("test videos of the run", [1, 3])
    for name in ("torch.export", "onnxruntime"):
        for difference in result["difference"][name].values():
            assert difference["max_abs"] <= 1e-5 * difference["largest"]
    assert result["difference"]["onnxruntime int8"]["feature"]["max_abs"] > 0
    assert set(result["speed"]["ms"]) == {"torch", *export.FILES}


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("file", ["model.onnx", "model.pt2"])
def test_a_file_turns_bytes_into_what_the_student_makes_of_them(run, exported, file, batch):
    path = exported[0] / file
    network = open_onnx(path) if file.endswith("onnx") else open_torch(path)
    clips = noise(batch)
    outputs = network(clips)
    for name, value in expected(run, clips).items():
        assert outputs[name].shape == value.shape
        torch.testing.assert_close(outputs[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()))


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx", "model.pt2"])
def test_files_say_what_to_feed_them(exported, file):
    if file == "model.pt2":
        with zipfile.ZipFile(exported[0] / file) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("extra/export.json"))
            about = json.loads(archive.read(name))
    else:
        model = onnx.load(exported[0] / file)
        onnx.checker.check_model(model)
        assert not any(node.metadata_props for node in model.graph.node)
        shapes = {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in [*model.graph.input, *model.graph.output]
        }
        assert shapes == {"clips": ["batch", 3, 4, 16, 16], "logits": ["batch", 2], "feature": ["batch", 64]}
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        about = {prop.key: json.loads(prop.value) for prop in model.metadata_props if "onnx." not in prop.key}
    assert (about["classes"], about["input"]["shape"]) == (list(CLASSES), ["batch", 3, 4, 16, 16])
    assert about["model"]["step"] == 7
    clip = {name: list(each) if isinstance(each, tuple) else each for name, each in CLIP.items()}
    assert about["preprocessing"].items() >= {**clip, "stride": 16}.items()


def test_files_do_not_tell_where_they_were_made(run, exported):
    hidden = [str(Path(export.__file__).parents[2]), str(Path(torch.__file__).parent), str(run), "/home/me"]
    for path in exported[0].iterdir():
        contents = [path.read_bytes()]
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as file:
                contents = [file.read(name) for name in file.namelist()]
        assert not [name for name in hidden for content in contents if name.encode() in content]


def test_int8_is_smaller_and_its_accuracy_is_counted(run, exported):
    folder, result = exported
    videos = Manifest.load(run / MANIFEST).split("test")
    clips = torch.stack([Window(video, Clip(**CLIP)).student_view for video in videos]).numpy()
    labels, best = np.array([video.label for video in videos]), {}
    for name in ("onnxruntime", "onnxruntime int8"):
        session = onnxruntime.InferenceSession(folder / export.FILES[name])
        best[name] = session.run(["logits"], {"clips": clips})[0].argmax(1)
    accuracy = result["int8"]["accuracy"]
    expected = {name: 100 * (answers == labels).mean() for name, answers in best.items()}
    assert accuracy["top1"] == pytest.approx(expected)
    assert accuracy["agree"] == pytest.approx(100 * np.equal(*best.values()).mean())
    assert (accuracy["videos"], accuracy["of"]) == (6, 6)
    assert result["bytes"]["onnxruntime int8"] < 0.5 * result["bytes"]["onnxruntime"]
    kinds = {node.op_type for node in onnx.load(folder / "model.int8.onnx").graph.node}
    assert {"Conv", "QuantizeLinear", "DequantizeLinear"} <= kinds


def test_the_documentation_reads_a_video_as_ccl_does_and_needs_neither_ccl_nor_torch(
    run, exported, clips_folder, tmp_path
):
    page = Path(__file__).resolve().parents[2] / "docs" / "export.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "exported").symlink_to(exported[0])
    video = clips_folder / "set" / "test" / "down" / "1.mp4"
    (tmp_path / "video.mp4").symlink_to(video)
    code = f"import sys; sys.modules.update(ccl_cli=None, torch=None)\n{code}\nprint(json.dumps(feature.tolist()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *name, feature = done.stdout.splitlines()
    output = expected(run, eval_view(read_frames(video, 0, 4, short_side=16).frames, Clip(**CLIP))[None])
    assert "\n".join(name) == CLASSES[int(output["logits"].argmax())]
    close = 0.1 * float(output["feature"].abs().max())
    np.testing.assert_allclose(json.loads(feature), output["feature"].numpy(), atol=close)


def at_batches(value: torch.Tensor) -> torch.Tensor:
    return value if len(value) == 1 else value.roll(1, dims=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "change"), [("logits", at_batches), ("feature", lambda value: value * float("nan"))]
)
def test_a_file_that_computes_something_else_is_not_handed_over(run, tmp_path, monkeypatch, output, change):
    def wrong(path: Path):
        network = open_torch(path)
        return lambda clips: {key: change(v) if key == output else v for key, v in network(clips).items()}

    monkeypatch.setattr(export, "open_torch", wrong)
    with pytest.raises(SystemSetupError, match=rf"model\.pt2 does not match torch: .* '{output}' differs"):
        export_model(run, tmp_path / "out" / "exported", formats=["torch"], tolerance=2e-4)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_tolerance_is_a_share_of_the_largest_value(run, tmp_path, monkeypatch):
    def close(path: Path):
        return lambda clips: {key: v + 3e-4 * v.abs().max() for key, v in expected(run, clips).items()}

    monkeypatch.setattr(export, "open_torch", close)
    result = export_model(run, tmp_path / "exported", formats=["torch"], tolerance=1e-3)
    assert result["difference"]["torch.export"]["feature"]["max_abs"] > 0


class Branching(nn.Module):
    def forward(self, video):
        return video if video.sum() > 0 else -video


class Bessel(nn.Module):
    def forward(self, video):
        return torch.special.bessel_j0(video)


def odd_student(block: nn.Module) -> Deployed:
    return Deployed(Student(nn.ModuleList([block]), 3, 2), Clip(**CLIP))


def test_a_student_that_cannot_be_traced_or_has_no_onnx_operator(tmp_path):
    with pytest.raises(PluginError, match="student 'mine' cannot be traced: "):
        trace(odd_student(Branching()), Clip(**CLIP), "mine")
    program = trace(odd_student(Bessel()), Clip(**CLIP), "mine")
    with pytest.raises(PluginError, match=r"(?s)'mine' cannot be written as ONNX: .*bessel.*--format torch"):
        write_onnx(program, tmp_path / "model.onnx", {}, "mine")


def test_files_that_are_named_are_compared_on(run, clips_folder, tmp_path):
    odd, one = tmp_path / "my 'clips'\n<b>", clips_folder / "set" / "test" / "down" / "0.mp4"
    odd.mkdir()
    model = load_student(run / MODEL)
    for path, message in ((tmp_path / "absent.mp4", "no file"), (odd, "holds no videos")):
        with pytest.raises(DataError, match=message):
            find_examples(model, [path])
    (odd / "notes.txt").write_text("no video")
    (odd / "a b.MP4").write_bytes(one.read_bytes())
    examples = find_examples(model, [odd, one])
    assert [video.path.name for video in examples.check] == ["a b.MP4", "0.mp4"]
    assert examples.what == "the given files"
    assert {video.split for video in examples.calibration} == {"train"}
    assert len(examples.labelled) == 6


@pytest.mark.parametrize("manifest", [None, "of other classes", "of videos that are gone"])
def test_without_the_runs_videos_ccl_draws_some(run, tmp_path, caplog, monkeypatch, manifest):
    model = tmp_path / "alone" / MODEL
    model.parent.mkdir()
    model.write_bytes((run / MODEL).read_bytes())
    known = Manifest.load(run / MANIFEST)
    gone = tuple(replace(video, path=tmp_path / "gone.mp4") for video in known.videos)
    if manifest:
        changes = {"classes": ("a", "b")} if manifest == "of other classes" else {"videos": gone}
        replace(known, **changes).save(model.with_name(MANIFEST))
    monkeypatch.setattr(example_clips, "GENERATED", "clips:?classes=2&per_class=1&seconds=0.2&size=36")
    examples = find_examples(load_student(model), [])
    assert (examples.what, examples.labelled) == ("generated clips", ())
    assert all(video.path.is_file() for video in (*examples.check, *examples.calibration))
    assert not {video.id for video in examples.check} & {video.id for video in examples.calibration}
    assert "The run's test videos are not on disk" in caplog.text


def test_damaged_videos_are_passed_over_and_few_are_repeated(run, tmp_path, caplog):
    videos = Manifest.load(run / MANIFEST).split("test")[:2]
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    damaged = replace(videos[0], path=bad)
    clips = some_clips([damaged, *videos], Clip(**CLIP), 5)
    assert len(clips) == 5
    assert torch.equal(clips[0], clips[2])
    assert not torch.equal(clips[0], clips[1])
    assert "bad.mp4" in caplog.text
    with pytest.raises(DataError, match="None of the 1 example videos"):
        some_clips([damaged], Clip(**CLIP), 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "r2plus1d_18" else pytest.mark.long)
        for name in sorted(registry.names(registry.STUDENTS))
    ],
)
def test_every_student_can_be_exported(run, tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    student = make_student(name, len(CLASSES)).eval()
    frames, size = CLIP["frames"], 48
    try:
        student.check_clip(frames, size)
    except RecipeError:
        frames, size = student.usual_clip
    recipe = Recipe(student=name, clip={**CLIP, "frames": frames, "size": size})
    save_model(folder / MODEL, student, recipe, CLASSES)
    (folder / MANIFEST).write_bytes((run / MANIFEST).read_bytes())
    result = export_model(folder / MODEL, tmp_path / "exported")
    assert set(result["difference"]) == {"torch.export", "onnxruntime"}
