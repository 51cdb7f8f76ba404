"""Large data sets, many classes, large galleries, long runs: memory stays flat, no file stays open."""

from __future__ import annotations

import gc
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ccl_cli.__main__ import main
from ccl_cli.config.recipe import Clip
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.checks.verify import verify
from ccl_cli.data.clips.dataset import Loaded, TrainingSet, training_loader
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.evaluation.metrics import recognition, retrieval
from ccl_cli.evaluation.model import fingerprint
from ccl_cli.search.store import create, open_library, stamp_of
from tests.conftest import moving_stripes
from tests.reliability.measured import Watch, ccl
from tests.reliability.reading import Listens
from tests.reliability.tally import full

CLIP = Clip(frames=8, size=32, short_side=32)
TRAIN = ("method=baseline", "clip.frames=8", "clip.size=32", "clip.short_side=32", "student=r2plus1d_tiny")
FLAT = 40.0  # MB that may come between the second and the last quarter of a run
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[Path]:
    """Three hundred encodings (in the checks of every change forty): 32x32, 20 frames, every second one with sound."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.mp4" for number in range(300 if full() else 40)]
    for number, path in enumerate(paths):
        sound = rng.random(25_600, dtype=np.float32) - 0.5 if number % 2 else None
        write_clip(path, moving_stripes(rng, number % 4 // 2, 20, 32), 25, sound)
    return paths


def many(tiny: list[Path], root: Path, videos: int, classes: int) -> Path:
    """A folder of so many names for these files: half training, half test, all classes in both."""
    for number in range(videos):
        split, label = ("train", "test")[number % 2], number // 2 % classes
        folder = root / split / f"c{label:04}"
        if number < 2 * classes:
            folder.mkdir(parents=True)
        os.link(tiny[number % len(tiny)], folder / f"{number:06}.mp4")
    return root


def tell(watch: Watch, videos: int, what: str, tally, files: int = 4, kept: float = 0.0) -> None:
    """Throughput and growth as a figure; in the long part a trial that fails if memory or open files grow.

    ``kept``: megabytes that are to be kept of all videos.

    The short part ends before everything has been taken once that is going to be kept.
    """
    first, last = watch.quarters()
    grown = last.megabytes - first.megabytes
    tally.figure(
        what,
        f"{videos:,} in {watch.seconds:.0f} s ({videos / watch.seconds:.0f} a second); memory "
        f"{first.megabytes:.0f}, later {last.megabytes:.0f} MB; open files {first.files:.0f}, later {last.files:.0f}",
    )
    with tally.trial(f"{what}: memory flat, no file left open"):
        if not full():
            return
        assert grown < FLAT + kept, f"{grown:.0f} MB more"
        assert last.files <= first.files + files, f"{last.files - first.files:.0f} more open files"


@pytest.mark.long
def test_videos_through_loader_evaluator_and_verify(tiny, tmp_path, tally, trials, caplog):
    caplog.set_level(logging.ERROR)
    videos, classes = len(trials(200, 10_000)), len(trials(20, 5_000))
    root = many(tiny, tmp_path / "set", videos, classes)
    manifest = load_data(f"folder:{root}")
    assert (len(manifest.videos), len(manifest.classes)) == (videos, classes)

    with Watch() as watch:
        dataset = TrainingSet(manifest.videos, CLIP, {"audio": Listens()}, 0)
        sampler = EpochSampler(videos, 20, 1)
        rows = set()
        for loaded in training_loader(dataset, sampler, workers=2, pin_memory=False):
            assert isinstance(loaded, Loaded)
            rows.update(loaded.batch.rows.tolist())
            watch.done = len(rows)
        assert len(rows) == videos
    tell(watch, videos, "videos through the loader of training", tally)

    with Watch() as watch:
        report = verify(manifest, Effort(2, 60.0), frames=8)
        assert {each.problem for each in report.problems} <= {"no track", "silent", "duplicate"}
    tell(watch, videos, "videos through `ccl data verify`", tally)

    settings = [f"data=folder:{root}", *TRAIN, "train.batch_size=50", "train.epochs=1", "eval.stride=8"]
    trained = ccl("train", *_set(settings), "--workers", "2", "--output", "runs/one")
    assert trained.code == 0, trained.err
    tally.figure(
        f"`ccl train`, {classes:,} classes, an epoch",
        f"{trained.seconds:.0f} s, {trained.megabytes:.0f} MB",
    )
    with Watch() as watch:
        result = evaluate("runs/one", workers=2)
    assert (result["counts"]["test"]["read"], result["counts"]["train"]["read"]) == (videos // 2, videos // 2)
    assert len(result["recognition"]["per_class"]) == classes
    scores = 4 * classes * (videos // 2) / 2**20  # of each test video and class
    tell(watch, videos, "videos through the evaluator", tally, kept=scores)
    for arguments in (
        ["report", "html", "runs/one", "--output", "page.html"],
        ["report", "table", "runs/one"],
    ):
        shown = ccl(*arguments)
        assert shown.code == 0, shown.err
        size = Path("page.html").stat().st_size if "html" in arguments else len(shown.out)
        tally.figure(
            f"`ccl {' '.join(arguments[:2])}`, {classes:,} classes",
            f"{shown.seconds:.1f} s, {shown.megabytes:.0f} MB, {size / 1e3:,.0f} kB",
        )


def _set(settings: list[str]) -> Iterator[str]:
    for setting in settings:
        yield from ("--set", setting)


def test_a_large_manifest(tmp_path, tally, trials):
    """Written, read, filtered, drawn from, and given to the commands; none of its files is there."""
    rows, classes = len(trials(5_000, 200_000)), len(trials(100, 5_000))
    names = tuple(f"class {number}" for number in range(classes))
    manifest = Manifest(
        "large",
        names,
        tuple(
            Video(
                f"{row // 50}/v_{row}_g{row % 25:02}_c01",
                tmp_path / f"videos/{row // 50}/{row}.mp4",
                row % classes,
                split,
            )
            for row in range(rows)
            for split in [("train", "train", "train", "test")[row // classes % 4]]
        ),
    )
    path = tmp_path / "large.jsonl"
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        begin = time.perf_counter()
        value = work()
        seconds[name] = time.perf_counter() - begin
        return value

    timed("write", lambda: manifest.save(path))
    read = timed("read", lambda: Manifest.load(path))
    assert isinstance(read, Manifest)
    assert read.videos == manifest.videos
    timed("check", lambda: read.validate(("train", "test")))
    timed("hash", lambda: read.hash)
    held = timed("hold out", lambda: read.hold_out(0.1))
    assert isinstance(held, Manifest)
    assert 0.05 < len(held.split("val")) / len(read.split("train")) < 0.2
    sampler = EpochSampler(rows, 64, 1)
    drawn = timed("draw an epoch", lambda: {draw.row for batch in sampler for draw in batch})
    assert drawn == set(range(rows))
    said = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    tally.figure(f"manifest of {rows:,} rows, {classes:,} classes", said)
    with tally.trial("large manifest"):
        assert max(seconds.values()) < 30
    for command, code in ("stats", 0), ("verify", 4):
        ran = ccl("data", command, f"manifest:{path}", "--json")
        with tally.trial("large manifest", command):
            assert ran.code == code, ran.err
            assert "Traceback" not in ran.err
            found = json.loads(ran.out)
            if command == "stats":
                assert sum(each["states"]["missing"] for each in found["splits"].values()) == rows
            else:
                assert sum(each["missing"] for each in found["counts"].values()) == rows
        tally.figure(
            f"`ccl data {command}`, {rows:,} rows whose files are gone",
            f"{ran.seconds:.0f} s, {ran.megabytes:.0f} MB",
        )


@pytest.mark.long
def test_a_large_gallery(tiny, tmp_path, tally, trials):
    """Retrieval with 512 numbers a video; `ccl index` and `ccl search` over a library of as many files."""
    gallery, queries, classes = len(trials(5_000, 200_000)), len(trials(100, 1_000)), 309
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (gallery + queries,), generator=rng)
    features = torch.randn(gallery + queries, 512, generator=rng)
    features += torch.randn(classes, 512, generator=rng)[labels]
    begin = time.perf_counter()
    with Watch() as watch:
        watch.look()
        found = retrieval(features[:queries], labels[:queries], features[queries:], labels[queries:])
    most = max(sample.megabytes for sample in watch.samples) - watch.samples[0].megabytes
    with tally.trial("large gallery: figures"):
        assert found["r10"] > 99
        assert found["map"] > 50
    tally.figure(
        f"retrieval, {queries:,} queries in {gallery:,} x 512",
        f"{time.perf_counter() - begin:.1f} s, {most:.0f} MB more",
    )
    begin = time.perf_counter()
    scores = torch.randn(gallery // 10, 5_000, generator=rng)
    figures = recognition(scores, torch.arange(len(scores)) % 5_000, [str(label) for label in range(5_000)])
    tally.figure(
        f"recognition, {len(scores):,} videos, 5,000 classes", f"{time.perf_counter() - begin:.1f} s"
    )
    with tally.trial("large gallery: figures"):
        assert 0 <= figures["top1"] < 1

    root = many(tiny, tmp_path / "set", 40, 2)
    trained = ccl(
        "train",
        *_set([f"data=folder:{root}", *TRAIN, "train.batch_size=4", "train.max_steps=1"]),
        "--output",
        "runs/one",
    )
    assert trained.code == 0, trained.err
    model = tmp_path / "runs/one/model.safetensors"
    videos = many(tiny, tmp_path / "videos", gallery, 100)
    folder = tmp_path / "library"
    folder.mkdir()
    dim = int(evaluate_dim(model))
    create(folder, model=model, fingerprint=fingerprint(model), dim=dim)
    paths = sorted(str(path) for path in videos.rglob("*.mp4"))
    vectors = torch.nn.functional.normalize(torch.randn(gallery, dim, generator=rng)).numpy()
    with open_library(folder, write=True) as library:
        for path, vector in zip(paths, vectors, strict=True):
            stamp = stamp_of(path)
            assert stamp
            library.put(path, stamp, 1, vector)
        library.note("roots", [str(videos)])
    commands = {
        "`ccl index`, nothing has changed": ["index", "--output", "library", "--json"],
        "`ccl index --faiss`": ["index", "--output", "library", "--faiss", "--json"],
        "`ccl search`": ["search", paths[gallery // 2], "--index", "library", "--json"],
        "`ccl search --faiss`": [
            "search",
            paths[gallery // 2],
            "--index",
            "library",
            "--faiss",
            "--json",
        ],
    }
    for name, arguments in commands.items():
        ran = ccl(*arguments)
        with tally.trial("large library: commands", name):
            assert ran.code == 0, ran.err
        tally.figure(f"{name}, {gallery:,} videos", f"{ran.seconds:.1f} s, {ran.megabytes:.0f} MB")


def evaluate_dim(model: Path) -> int:
    from ccl_cli.training.artefact import load_model

    return load_model(model).student.feature_dim


def test_many_runs_in_one_process(tiny, tmp_path, tally, trials, caplog, capsys):
    """Train and evaluate again and again, as a notebook or a benchmark in one process does."""
    caplog.set_level(logging.ERROR)
    root = many(tiny, tmp_path / "set", 40, 2)
    settings = [f"data=folder:{root}", *TRAIN, "train.batch_size=4", "train.max_steps=3", "eval.stride=8"]
    watch = Watch()
    watch._begin = time.perf_counter()
    cycles = trials(2, 16)
    for cycle in cycles:
        run = f"runs/{cycle}"
        arguments = [
            "train",
            *_set([*settings, f"train.seed={cycle}"]),
            "--workers",
            str(cycle % 2),
            "--output",
            run,
        ]
        assert main(arguments) == 0
        assert main(["eval", run]) == 0
        gc.collect()
        watch.look()
    capsys.readouterr()
    watch.seconds = time.perf_counter() - watch._begin
    tell(watch, len(cycles), "runs in one process, trained and evaluated", tally)
