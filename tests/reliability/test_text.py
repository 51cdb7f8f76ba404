"""Every text that ccl reads, damaged: a command ends with a valid result or one sentence, within seconds."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ccl_cli import registry
from ccl_cli.__main__ import main
from ccl_cli.config.spec import parse_data, parse_model
from ccl_cli.data.checks import findings
from ccl_cli.errors import CclError
from tests.reliability.bounds import bounded
from tests.reliability.damage import damaged_text
from tests.reliability.processes import seeds
from tests.report.folders import write_cell

LONGEST = 1_500  # letters of a sentence
RECIPE = """\
name: mine
data: folder:videos?test=0.25
teachers: [audio:cnn14, "image:small@w.safetensors?dim=64"]
student: r2plus1d_tiny
method: {ccl: {temperature: {audio: 0.1}}, pkt: {}}
clip: {frames: 8, size: 56, scale: [0.5, 1.0], flip: 0}
optim: {lr: 1e-3, milestones: [0.5, 0.75], clip_norm: null}
train: {epochs: 3, batch_size: 8, precision: fp32, seed: 1}
"""
BENCH = """\
extends: smoke
data: "clips:?classes=2&per_class=1&seconds=0.2&size=36"
bench:
  setups: {A: audio:cnn14, AI: [audio:cnn14, image:small]}
  methods: {baseline: baseline, ccl: {method: ccl, setups: [AI], optim: {lr: 0.1}}}
  seeds: [0, 1]
  tune: {grid: [0.1, 1.0], seeds: [0]}
"""
EVALUATED = {
    "data": {"name": "ucf51-split1", "manifest": "f" * 16},
    "counts": {"test": {"videos": 9, "read": 8, "missing": 1, "corrupt": 0, "unreadable": {"v": "cut off"}}},
    "selection": "last",
    "recognition": {"top1": 60.0, "per_class": {"a": {"top1": 50.0, "videos": 4}}},
}


@pytest.fixture(scope="module")
def valid(clips_folder, untrained_run, tmp_path_factory) -> Path:
    """A folder in which every file is as it should be."""
    root = tmp_path_factory.mktemp("valid")
    write_lists(root)
    write_runs(root / "bench")
    shutil.copytree(untrained_run, root / "run")
    for split in ("train", "test"):
        for name in ("down", "right"):
            (root / "set" / split / name).mkdir(parents=True)
            (root / "set" / split / name / "a.mp4").hardlink_to(clips_folder / "set" / split / name / "2.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCL_HOME", str(root / "home"))
        for words in (
            f"cache build --data folder:{root}/set --workers 0 --teacher audio:small?weights=random",
            f"data pack folder:{root}/set --output {root}/packed --workers 0 --short-side 16",
            f"index {root}/run {root}/set --output {root}/library --workers 0",
        ):
            assert main(words.split()) == 0
    (header,) = root.rglob("cache.json")
    shutil.move(header.parent, root / "home" / "embeddings" / "one")
    return root


def write_lists(root: Path) -> None:
    """Lists of videos in every published form, recipes, and a plugin's entry points."""
    (root / "r.yaml").write_text(RECIPE)
    (root / "bench.yaml").write_text(BENCH)
    row = {"id": "a/1", "path": "a/1.mp4", "label": 0, "split": "train"}
    other = {"id": "b/2", "path": "b.mp4", "label": 1, "split": "val", "start": 1.5, "end": 3}
    header = {
        "format": "ccl-manifest-1",
        "name": "x",
        "classes": ["a", "b"],
        "videos": 2,
        "root": "v",
        "hash": "0" * 16,
    }
    (root / "m.jsonl").write_text("\n".join(map(json.dumps, (header, row, other))) + "\n")  # fmt: skip
    (root / "v.csv").write_text('path,label,split,start,end\na/1.mp4,run,train,,\n"b,2.mp4","sörf ""x""",val,0,1\n')  # fmt: skip
    (root / "vggsound.csv").write_text('abc_DEF-123,30,"people, talking",train\nxyz_DEF-123,1,dog,test\n')
    (root / "abc_DEF-123_000030.mp4").touch()
    (root / "ucf" / "ucfTrainTestlist").mkdir(parents=True)
    (root / "ucf" / "v_Biking_g01_c01.avi").touch()
    (root / "ucf/ucfTrainTestlist/testlist01.txt").write_text("Biking/v_Biking_g02_c01.avi\n")
    (root / "ucf/ucfTrainTestlist/trainlist01.txt").write_text("Biking/v_Biking_g01_c01.avi 1\nDiving/v_Diving_g01_c01.avi 2\n")  # fmt: skip
    cut = [{"label": "Surf", "segment": [0.5, 9.0]}, {"label": "Dive", "segment": [9, 9.01]}]
    subsets = {"abc": ("training", cut), "d-e": ("validation", cut[:1])}
    entries = {key: {"subset": name, "annotations": segments} for key, (name, segments) in subsets.items()}
    (root / "activity_net.v1-3.min.json").write_text(json.dumps({"version": "1.3", "database": entries}))  # fmt: skip
    (root / "v_abc.mp4").touch()
    np.savez(root / "table.npz", names=["a/1"], embedding=np.zeros((1, 3), np.float32))
    save_file({"embedding": torch.zeros(2, 3)}, root / "table.safetensors", {"names": '["a/1", "b/2"]'})
    (root / "broken-1.0.dist-info").mkdir()
    (root / "broken-1.0.dist-info/METADATA").write_text("Name: broken\n")
    (root / "broken-1.0.dist-info/entry_points.txt").write_text("[ccl.teachers]\naudio.bad = bad.mod:Teacher\nimage.bad=bad:T [extra]\n")  # fmt: skip


def write_runs(bench: Path) -> None:
    """A run of a benchmark and the baseline's, with records of every kind."""
    write_cell(bench, "baseline", "", 0, top1=50.0)
    write_cell(bench, "ccl", "AI", 0, top1=60.0, retrieval=(50, 60, 70), changed={"ccl": {}})
    for run in bench.iterdir():
        (run / "eval-ucf51-split1-test.json").write_text(json.dumps(EVALUATED))
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5, "ce": 1.0, "accuracy": 0.5}\n' * 2)


CELL = "bench/final-ccl-AI-s0"
# The file that is damaged, and the command that reads it.
READERS = [
    ("r.yaml", "recipes check {root}/r.yaml"),
    ("r.yaml", "recipes show {root}/r.yaml"),
    ("bench.yaml", "bench {root}/bench.yaml --dry-run"),
    ("m.jsonl", "data check manifest:{root}/m.jsonl --workers 1"),
    ("v.csv", "data check csv:{root}/v.csv --workers 1"),
    ("vggsound.csv", "data check vggsound:{root} --workers 1"),
    ("ucf/ucfTrainTestlist/trainlist01.txt", "data check ucf101:{root}/ucf --workers 1"),
    ("activity_net.v1-3.min.json", "data check activitynet:{root}?segments=trimmed --workers 1"),
    ("packed/index.json", "eval {root}/run --data shards:{root}/packed"),
    ("home/embeddings/one/cache.json", "cache ls"),
    ("home/embeddings/one/cache.json", "cache verify"),
    (f"{CELL}/summary.json", "report table {root}/bench --runs"),
    (f"{CELL}/eval-ucf51-split1-test.json", "report figure classes {root}/bench --output {root}/c.svg"),
    (f"{CELL}/eval-ucf51-split1-test.json", "report table {root}/bench --format latex"),
    (f"{CELL}/cell.json", "report compare ccl baseline {root}/bench"),
    (f"{CELL}/metrics.jsonl", "report figure curves {root}/bench --output {root}/c.svg"),
    (f"{CELL}/recipe.yaml", "report table {root}/bench --format markdown"),
    ("run/recipe.yaml", "eval {root}/run --data folder:{root}/set"),
    ("run/manifest.jsonl", "eval {root}/run"),
    ("broken-1.0.dist-info/entry_points.txt", "plugins ls"),
]
TYPED = [
    ("train.epochs=3", "recipes show smoke --set {text}"),
    ("method.ccl.temperature.audio=0.1", "recipes show smoke --set {text}"),
    ("0,1,2", "bench {root}/bench.yaml --dry-run --seeds {text}"),
    ("folder:{root}/set?test=0.25&val=0.1&seed=3&split=blocks", "data check {text} --workers 1"),
    ("csv:{root}/v.csv?delimiter=;&root={root}", "data check {text} --workers 1"),
    ("audio:small@w/a.pth?dim=64&x=true", "teachers info {text}"),
]


@pytest.fixture
def root(valid, tmp_path, monkeypatch, logging_as_before) -> Iterator[Path]:
    """A copy of the valid folder, on Python's path."""
    root = shutil.copytree(
        valid, tmp_path / "valid", copy_function=lambda *paths: Path(paths[1]).hardlink_to(paths[0])
    )
    monkeypatch.setenv("CCL_HOME", str(root / "home"))
    monkeypatch.syspath_prepend(str(root))
    # The texts are damaged here, not the videos, so no process needs to be replaced.
    monkeypatch.setattr(findings, "run_each", lambda jobs, work, **_: ((job, work(job)) for job in jobs))
    registry._scan.cache_clear()
    yield root
    registry._scan.cache_clear()


def replace(path: Path, content: bytes) -> None:
    """Write a new file: the old one has other names."""
    path.unlink()
    path.write_bytes(content)


def check(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with bounded(5):
        code = main(words)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert code in (0, 2, 3, 4, 5, 6), text[-600:]
    assert "Traceback" not in text
    assert "Internal error" not in text
    errors = [line for line in captured.err.splitlines() if line.startswith("Error")]
    assert code == 0 or errors, text[-600:]
    assert all(len(line) <= LONGEST and line.isprintable() for line in errors)


@pytest.mark.parametrize(("file", "words"), READERS, ids=[words.replace("/", "-") for _, words in READERS])
@seeds(2, 200)
def test_a_damaged_file_is_read_or_refused(root, capsys, file, words, seed):
    replace(root / file, damaged_text((root / file).read_bytes(), random.Random(f"{file} {seed}")))
    check([word.format(root=root) for word in words.split()], capsys)


def test_undamaged_all_of_them_are_read(root):
    codes = {words: main([word.format(root=root) for word in words.split()]) for _, words in READERS}
    # The lists are whole; videos of most are lacking.
    assert {code for words, code in codes.items() if "data check" not in words} == {0}
    assert {code for words, code in codes.items() if "data check" in words} <= {0, 4}


@pytest.mark.parametrize(("text", "words"), TYPED, ids=[words for _, words in TYPED])
@seeds(3, 200)
def test_what_somebody_types_is_understood_or_refused(root, capsys, text, words, seed):
    """No shell passes zero bytes; what is no UTF-8 comes as lone surrogates."""
    odd = damaged_text(text.format(root=root).encode(), random.Random(f"{text} {seed}")).replace(b"\0", b"")
    typed = odd.decode("utf-8", "surrogateescape")
    if ":/" not in typed or str(root) in typed:  # not somebody else's folder
        check([typed if word == "{text}" else word for word in words.split()], capsys)


@seeds(100, 2000)
def test_a_spec_is_the_same_again_once_it_is_written(seed):
    rng = random.Random(seed)
    for text in (b"audio:cnn14@w/a.pth?dim=2048&x=true", b"folder:my videos?test=0.25&seed=1&val=.1"):
        typed = damaged_text(text, rng).replace(b"\0", b"").decode("utf-8", "surrogateescape")
        for parse in (parse_model, parse_data):
            try:
                spec = parse(typed)
            except CclError as error:
                refused = error.message
            else:
                assert parse(str(spec)) == spec or "nan" in str(spec)
                continue
            assert len(refused) <= LONGEST
            assert refused.isprintable()


@seeds(5, 200)
def test_headers_of_tables_of_embeddings(root, capsys, seed):
    names = damaged_text(b'["a/1", "b/2"]', random.Random(seed)).decode("utf-8", "replace")
    replace(root / "table.safetensors", b"")
    save_file({"embedding": torch.zeros(2, 3)}, root / "table.safetensors", {"names": names})
    check(["teachers", "info", f"audio:precomputed@{root}/table.safetensors"], capsys)


@seeds(3, 100)
def test_notes_of_a_library(root, capsys, seed):
    rng = random.Random(seed)
    video = next((root / "set" / "test").rglob("*.mp4"))
    base_file = root / "library" / "library.sqlite"
    replace(base_file, base_file.read_bytes())
    with closing(sqlite3.connect(base_file, isolation_level=None)) as base:
        key, value = rng.choice(base.execute("SELECT * FROM about").fetchall())
        odd = damaged_text(str(value).encode(), rng).decode("utf-8", "replace")
        base.execute("UPDATE about SET value = ? WHERE key = ?", (odd, key))
    check(["search", str(video), "--index", str(root / "library"), "--workers", "0"], capsys)


@seeds(3, 60)
def test_features_beside_a_run(root, capsys, seed):
    words = ["eval", str(root / "run"), "--data", f"folder:{root}/set"]
    assert main(words) == 0
    capsys.readouterr()
    for path in (root / "run").glob("*.safetensors"):
        if path.name != "model.safetensors":
            tensors = load_file(path)
            odd = damaged_text(b'{"model": "m", "videos": "v", "unreadable": {}}', random.Random(seed))
            replace(path, b"")
            save_file(tensors, path, {"ccl": odd.decode("utf-8", "replace")})
    check(words, capsys)
