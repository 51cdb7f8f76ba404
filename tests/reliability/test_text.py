"""Every text that ccl reads, damaged by seed: a valid result or an error of one sentence, within a second."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ccl_cli import registry
from ccl_cli.errors import CclError, Several
from ccl_cli.utils.console import _unexpected
from tests.cli.conftest import ccl  # noqa: F401
from tests.reliability.mutations import as_json, damaged, twisted
from tests.report.folders import write_cell, write_run

_LONGEST = 1_500  # letters of a sentence


class Lines(list):
    """A file of JSON lines."""


Seed = bytes | dict | list  # text, a JSON value, or lines of JSON values
Reading = tuple[Sequence[Seed], Callable[[bytes], object]]
Begin = Callable[[Path], Reading]


@dataclass(frozen=True)
class Reader:
    what: str
    begin: Begin  # valid texts, and what reads one; may write into the folder
    quick: int
    long: int
    seconds: float


READERS: list[Reader] = []


def reader(what: str, long: int, quick: int = 20, seconds: float = 1) -> Callable[[Begin], Begin]:
    def keep(begin: Begin) -> Begin:
        READERS.append(Reader(what, begin, quick, long, seconds))
        return begin

    return keep


def odd(seeds: Sequence[Seed], rng: Random) -> bytes:
    """One text, made from a valid one."""
    seed = rng.choice(seeds)
    if isinstance(seed, bytes):
        return damaged(seed, rng)
    if rng.random() < 0.25:
        return damaged(plain(seed), rng)
    if isinstance(seed, Lines):
        lines = list(map(partial(as_json, rng=Random(0)), seed))
        place = rng.randrange(len(lines))
        lines[place] = as_json(twisted(seed[place], rng), rng)
        return b"\n".join(lines)
    return as_json(twisted(seed, rng), rng)


def plain(seed: Seed) -> bytes:
    if isinstance(seed, bytes):
        return seed
    return (
        b"\n".join(json.dumps(each).encode() for each in seed)
        if isinstance(seed, Lines)
        else json.dumps(seed).encode()
    )


def check(read: Callable[[bytes], object], data: bytes, seconds: float = 1) -> None:
    """A result or a sentence, in time: the processor's, as a busy machine's clock says nothing."""
    begin = time.process_time()
    refused_or_not(read, data)
    took = time.process_time() - begin
    assert took < seconds, f"{took:.1f} s"


def shown(error: CclError | OSError) -> CclError:
    """What the command line says of it; of what the system refuses, its reason and the file."""
    return error if isinstance(error, CclError) else _unexpected(error)


def refused_or_not(read: Callable[..., object], *arguments: Any) -> object:
    """For what need not work even with the valid text."""
    try:
        return read(*arguments)
    except (CclError, OSError) as error:
        check_sentences(shown(error))
        return None


def check_sentences(error: CclError) -> None:
    for each in error.errors if isinstance(error, Several) else [error]:
        assert each.message, "no sentence"
        assert len(each.message) <= _LONGEST, f"{len(each.message)} letters"
        assert each.message.isprintable(), f"not to be printed: {each.message[:200]!r}"
        assert not re.search(r"Traceback|Internal error|Error\(", each.message), each.message[:200]
        assert all(len(line) <= _LONGEST for line in (each.hint or "").split("\n")), (
            f"a hint of {len(each.hint)} letters"
        )
        assert (each.hint or "").replace("\n", "").isprintable(), f"not to be printed: {each.hint[:200]!r}"


def to_file(path: Path, then: Callable[[], object]) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        path.write_bytes(data)
        return then()

    return read


def typed(then: Callable[[str], object]) -> Callable[[bytes], object]:
    """What somebody types: no shell passes zero bytes, what is no UTF-8 comes as lone surrogates."""
    return lambda data: then(data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))


# ---- recipes and what is typed

RECIPE = b"""\
name: mine
data: folder:videos?test=0.25
teachers: [audio:cnn14, "image:small@w.safetensors?dim=64"]
student: r2plus1d_tiny
method: {ccl: {temperature: {audio: 0.1}}, pkt: {}}
clip: {frames: 8, size: 56, scale: [0.5, 1.0], flip: 0}
optim: {lr: 1e-3, milestones: [0.5, 0.75], clip_norm: null}
train: {epochs: 3, batch_size: 8, precision: fp32, seed: 1}
"""
BENCH = b"""\
extends: smoke
bench:
  setups: {A: audio:cnn14, AI: [audio:cnn14, image:small]}
  methods: {baseline: baseline, ccl: {method: ccl, setups: [AI], optim: {lr: 0.1}}}
  seeds: [0, 1]
  tune: {grid: [0.1, 1.0], seeds: [0]}
"""


@reader("recipes", 2_500)
def _recipes(folder: Path) -> Reading:
    from ccl_cli.config.load import check_recipe, load_recipe, to_yaml

    def load() -> object:
        recipe = load_recipe(str(folder / "r.yaml"))
        check_recipe(recipe)
        (folder / "again.yaml").write_text(to_yaml(recipe), encoding="utf-8")
        assert load_recipe(str(folder / "again.yaml")) == recipe
        return recipe.hash()

    values = {
        "name": "a",
        "method": "ccl+pkt",
        "teachers": ["audio:cnn14"],
        "clip": {"mean": [0.4, 0.4, 0.4]},
    }
    values |= {"train": {"epochs": 3}, "optim": {"lr": 0.1}, "cache": {"use": False}, "eval": {"stride": 2}}
    return [RECIPE, BENCH, RECIPE + b"extends: smoke\n", values], to_file(folder / "r.yaml", load)


@reader("benchmarks of a recipe, laid out", 500)
def _matrix(folder: Path) -> Reading:
    from ccl_cli.bench import matrix
    from ccl_cli.config.load import load_recipe

    def load() -> object:
        recipe = load_recipe(str(folder / "r.yaml"))
        matrix.check(recipe)
        return matrix.tune_cells(recipe, hold_out=True), matrix.final_cells(recipe, {})

    values = {"name": "a", "bench": {"setups": {"A": ["audio:cnn14"], "AI": ["audio:cnn14", "image:small"]}}}
    values["bench"] |= {
        "methods": {"b": "baseline", "c": {"method": {"ccl": {}}, "setups": ["A"], "optim": {"lr": 1}}}
    }
    values["bench"] |= {
        "weights": {"c": {"A": 2.0}},
        "tune": {"grid": [0.1, 1]},
        "ablations": {"x": {"method": "ccl"}},
    }
    return [BENCH, values, values], to_file(folder / "r.yaml", load)


@reader("--set KEY=VALUE", 4_000)
def _overrides(folder: Path) -> Reading:
    from ccl_cli.config.load import check_recipe, load_recipe

    seeds = [
        b"train.epochs=3",
        b"method.ccl.temperature.audio=0.1",
        b"teachers=[audio:cnn14]",
        b"optim.lr=1e-3",
        b"clip={frames: 8}",
    ]
    return seeds, typed(lambda text: refused_or_not(check_recipe, load_recipe(None, overrides=[text])))


@reader("teachers, students and data sets as typed", 9_000)
def _specs(folder: Path) -> Reading:
    from ccl_cli.config.spec import parse_data, parse_model
    from ccl_cli.teachers.fitted import as_fitted

    def both(text: str) -> None:
        refused_or_not(lambda: as_fitted(parse_model(text)))
        for parse in parse_model, parse_data:
            refused_or_not(same_again, parse, text)

    def same_again(parse: Callable[[str], object], text: str) -> None:
        spec = parse(text)
        assert parse(str(spec)) == spec or "nan" in str(spec), f"{text[:100]!r} is not {str(spec)[:100]!r}"

    return [
        b"audio:cnn14@w/a.pth?dim=2048&x=true",
        b"r2plus1d_18",
        b"folder:my videos?test=0.25&seed=1&val=.1",
    ], typed(both)


@reader("options of data sets", 6_000)
def _options(folder: Path) -> Reading:
    from ccl_cli.config.spec import parse_data
    from ccl_cli.data.sources import load_data

    for name in ("a/1.mp4", "a/2.mp4", "a/1²3.mp4", "b/1.mp4", "b/2.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "v.csv").write_text("path;label\na/1.mp4;a\n")
    at = str(folder).encode()
    seeds = [
        b"folder:" + at + b"?test=0.25&val=0.1&seed=3&split=blocks",
        b"folder:" + at + b"?fold=1&folds=3",
        b"csv:" + at + b"/v.csv?delimiter=;&root=" + at,
        b"ucf101:" + at + b"?split=2&lists=x&videos=false",
        b"activitynet:" + at + b"?segments=trimmed",
    ]

    def load(text: str) -> None:
        place = Path(parse_data(text).name or ".").expanduser()
        if not place.is_dir() or place.resolve().is_relative_to(folder):  # not somebody else's files
            load_data(text, need=())

    return seeds, typed(partial(refused_or_not, load))


@reader("--seeds", 6_000)
def _seeds(folder: Path) -> Reading:
    from ccl_cli.cli.bench import parse_seeds

    return [b"5", b"0,1,2", b"3,"], typed(parse_seeds)


# ---- data sets


def _listed(manifest: Any) -> object:
    manifest.validate(())
    return manifest.hash, manifest.counts(), manifest.labels_hash


@reader("manifests", 8_000)
def _manifests(folder: Path) -> Reading:
    from ccl_cli.data.sources.manifest import load

    header = {
        "format": "ccl-manifest-1",
        "name": "x",
        "classes": ["a", "b"],
        "videos": 3,
        "root": "v",
        "hash": "0" * 16,
    }
    packed = {"shard": "/x/a.tar", "key": "k", "members": [["json", 0, 5], ["mp4", 5, 9]]}
    rows = [{"id": "a/1", "path": "a/1.mp4", "label": 0, "split": "train"}]
    rows += [{"id": "b/1", "path": packed, "label": 1, "split": "test"}]
    rows += [{"id": "b/2", "path": "b.mp4", "label": 1, "split": "val", "start": 1.5, "end": 3}]
    seed = Lines([header, *rows])
    return [seed], to_file(folder / "m.jsonl", lambda: _listed(load(str(folder / "m.jsonl"))))


@reader("tables of videos (CSV)", 9_000)
def _tables(folder: Path) -> Reading:
    from ccl_cli.data.sources.csv import load

    rows = (
        b"path,label,split,start,end\na/1.mp4,run,train,,\na/1.mp4,run,test,3.5,9\n"
        + '"b,2.mp4","sörf ""x""",val,0,1\n'.encode()
    )
    return [rows, b"path,label\n1.mp4,1\n2.mp4,10\n3.mp4,2\n"], to_file(
        folder / "v.csv", lambda: _listed(load(str(folder / "v.csv")))
    )


@reader("VGGSound's list", 8_000)
def _vggsound(folder: Path) -> Reading:
    from ccl_cli.data.sources.vggsound import load

    (folder / "abc_DEF-123_000030.mp4").touch()
    rows = b'abc_DEF-123,30,"people, talking",train\nxyz_DEF-123,1,dog,test\n# note\n'
    return [rows], to_file(folder / "vggsound.csv", lambda: _listed(load(str(folder))))


@reader("UCF101's lists", 8_000)
def _ucf(folder: Path) -> Reading:
    from ccl_cli.data.sources.ucf import load_ucf101

    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    (folder / "v_Biking_g01_c01.avi").touch()
    (lists / "testlist01.txt").write_text("Biking/v_Biking_g02_c01.avi\n")
    rows = b"Biking/v_Biking_g01_c01.avi 1\nDiving/v_Diving_g01_c01.avi 2\n"
    return [rows], to_file(lists / "trainlist01.txt", lambda: _listed(load_ucf101(str(folder))))


@reader("ActivityNet's annotations", 7_000)
def _activitynet(folder: Path) -> Reading:
    from ccl_cli.data.sources.activitynet import load

    (folder / "v_abc.mp4").touch()
    cut = [{"label": "Surf", "segment": [0.5, 9.0]}, {"label": "Dive", "segment": [9, 9.01]}]
    entries = {
        "abc": {"subset": "training", "annotations": cut},
        "d-e": {"subset": "validation", "annotations": cut[:1]},
    }
    seed = {"version": "1.3", "database": entries | {"t": {"subset": "testing"}}}

    def both() -> object:
        return [_listed(load(str(folder), segments=kind)) for kind in ("whole", "trimmed")]

    return [seed], to_file(folder / "activity_net.v1-3.min.json", both)


@reader("captions (CSV)", 6_000)
def _captions(folder: Path) -> Reading:
    from ccl_text.captions import digest_of, read_captions

    path = str(folder / "c.csv")
    return [b'id,text\na/1,a dog\na/1,"a, cat"\nb/2,"x\ny"\n'], to_file(
        Path(path), lambda: read_captions(path, digest_of(path))
    )


# ---- files of ccl's own


@reader("the index of shards", 3_000)
def _index(folder: Path) -> Reading:
    from ccl_cli.data.shards.index import read_manifest
    from ccl_cli.data.sources.manifest import load

    (folder / "train-000000.tar").write_bytes(bytes(10_240))
    samples = [
        {"shard": 0, "key": "k", "members": [["json", 512, 90], ["mp4", 1024, 500]], "sha256": "0" * 16}
    ]
    videos = [
        {"id": "a", "label": 0, "split": "train", "sample": 0},
        {"id": "b", "label": 1, "split": "test", "unreadable": "cut", "end": 3},
    ]
    seed = {
        "format": "ccl-shards-1",
        "name": "x",
        "packed_from": "0" * 16,
        "settings": {"jpeg": 90},
        "classes": ["a", "b"],
    }
    seed |= {"shards": [{"name": "train-000000.tar", "size": 10_240}], "samples": samples, "videos": videos}

    def listed() -> object:
        manifest = read_manifest(str(folder))
        manifest.save(folder / "kept.jsonl")
        load(str(folder / "kept.jsonl"))
        return _listed(manifest)

    return [seed], to_file(folder / "index.json", listed)


@reader("records of packed videos", 6_000)
def _records(folder: Path) -> Reading:
    from ccl_cli.data.video.shard_reader import ShardReader
    from ccl_cli.data.video.storage import Member, Packed

    picture = {
        "width": 8,
        "height": 6,
        "time_base": [1, 25],
        "origin": 0.0,
        "pts": [0, 1, 2],
        "end_pts": 3,
        "sizes": [9, 9, 9],
    }
    seed = {
        "format": "ccl-packed-1",
        "key": "k",
        "split": "train",
        "rows": [],
        "short_side": None,
        "picture": picture,
    }
    seed |= {"sound": {"start": 0.0, "end": 0.1, "rate": 16000, "state": "present"}, "sha256": "0"}
    mp4 = seed | {"picture": {**picture, "keys": [[0, 0]]}, "sound": None}
    del mp4["picture"]["sizes"]
    path = folder / "a.tar"

    def look() -> object:
        where = Packed(str(path), "k", (Member("json", 0, path.stat().st_size), Member("jpgs", 0, 27)))
        video = ShardReader(where)
        sound = video.metadata.audio and video.audio(0, 0.1)
        return video.scaled_to, video.metadata.frame_range(), sound

    return [seed, mp4], to_file(path, look)


@reader("headers of caches", 5_000)
def _caches(folder: Path) -> Reading:
    from ccl_cli.cli.cache import _row
    from ccl_cli.teachers.embedding_cache import STATES, Cached

    np.save(folder / "embedding.npy", np.zeros((2, 1, 3), np.float32))
    np.save(folder / "state.npy", np.zeros(2, np.uint8))
    key = {"teacher": "audio:x", "fingerprint": "f", "data": "d", "files": "h", "views": "track"}
    seed = {"format": "ccl-embeddings-2", "states": STATES, "key": key, "videos": 2, "count": 1, "dim": 3}
    seed |= {"kind": "audio", "sha256": "0", "built": "2026-01-01", "unreadable": {"1": "cut off"}}
    seed |= {"inexact": 1, "frames": 0}

    def opened() -> object:
        cached = Cached.open(folder)
        return (
            json.dumps(_row(cached)),
            cached.header.key.folder,
            cached.header.key.differs_from(cached.header.key),
        )

    return [seed], to_file(folder / "cache.json", opened)


def tensors_with(header: bytes, tensors: dict[str, torch.Tensor]) -> bytes:
    """A safetensors file with a text in its header."""
    return save(tensors, {"ccl": header.decode("utf-8", "replace")})


def framed(whole: bytes) -> bytes:
    """A file's own header, with its length set right."""
    return struct.pack("<Q", len(whole)) + whole


# The network that a header names is built, whatever network that is.
@reader("headers of models, networks built in 10 s", 200, quick=2, seconds=10)
def _models(folder: Path) -> Reading:
    from ccl_cli.config.recipe import Recipe
    from ccl_cli.training.artefact import load_model
    from ccl_cli.training.build import make_student

    recipe = Recipe(student="r2plus1d_tiny", method="baseline", clip={"frames": 4, "size": 32})
    seed = {
        "format": "ccl-model-1",
        "version": "0.1.0",
        "recipe": recipe.model_dump(mode="json"),
        "classes": ["a", "b"],
    }
    state = dict(make_student("r2plus1d_tiny", 2, with_weights=False).state_dict())
    path = folder / "model.safetensors"

    def read(data: bytes) -> object:
        path.write_bytes(tensors_with(data, state))
        return load_model(path)

    return [seed], read


@reader("headers of safetensors files", 6_000)
def _safetensors(folder: Path) -> Reading:
    from ccl_cli.teachers.fitted import read_fitted
    from ccl_cli.teachers.weights import load_state
    from ccl_cli.training.artefact import load_model

    whole = save({"a": torch.zeros(3), "b": torch.zeros(2, 2)}, {"ccl": json.dumps({"format": "x"})})
    (size,) = struct.unpack("<Q", whole[:8])
    path = folder / "w.safetensors"

    def read(data: bytes) -> object:
        path.write_bytes(framed(data) + whole[8 + size :])
        for reading in read_fitted, load_state, load_model:
            refused_or_not(reading, path)

    return [whole[8 : 8 + size], json.loads(whole[8 : 8 + size])], read


@reader("headers of fitted teachers", 6_000)
def _fitted(folder: Path) -> Reading:
    from ccl_cli.config.spec import parse_model
    from ccl_cli.teachers.fitted import as_fitted

    seed = {
        "format": "ccl-teacher-1",
        "version": "0.1.0",
        "teacher": "audio:small",
        "classes": ["a", "b"],
        "options": {"dim": 8},
    }
    seed |= {"dim": 8, "preprocess": "Log()", "data": "clips", "manifest": "0" * 16}
    path = folder / "t.safetensors"

    def read(data: bytes) -> object:
        path.write_bytes(tensors_with(data, {"a": torch.zeros(1)}))
        spec, classes = as_fitted(parse_model(f"audio:small@{path}"))
        return str(spec), classes

    return [seed], read


@reader("names of precomputed embeddings", 4_000)
def _precomputed(folder: Path) -> Reading:
    from ccl_plugins.precomputed import _open_table, open_table

    path = folder / "e.safetensors"

    def read(data: bytes) -> object:
        _open_table.cache_clear()
        path.write_bytes(save({"embedding": torch.zeros(2, 3)}, {"names": data.decode("utf-8", "replace")}))
        table = open_table(str(path))
        return table.dim, table.hash, table.coverage(["a/1", "b/2"])

    return [["a/1", "b/2"], b'["a/1", "b/2"]'], read


@reader("features kept beside a run", 1_200)
def _described(folder: Path) -> Reading:
    from ccl_cli.evaluation.prediction_cache import _read as read_described

    key, path = {"model": "m", "videos": "v"}, folder / "d.safetensors"
    tensors = {
        "scores": torch.zeros(2, 3),
        "features": torch.zeros(2, 4),
        "labels": torch.zeros(2, dtype=torch.long),
    }
    tensors["sizes"] = torch.ones(2, dtype=torch.long)

    def read(data: bytes) -> object:
        path.write_bytes(tensors_with(data, tensors))
        return read_described(path, key, [1, 1])

    return [{**key, "unreadable": {"0": "cut off"}}], read


@reader("what a library notes", 250)
def _libraries(folder: Path) -> Reading:
    import sqlite3
    from contextlib import closing

    from ccl_cli.search.index import own_model
    from ccl_cli.search.store import create, open_library

    create(folder, model=folder / "gone", fingerprint="f", dim=3)
    about = {"format": "ccl-library-1", "model": "/x", "fingerprint": "f", "dim": 3, "roots": ["/a"]}

    def read(data: bytes) -> object:
        key, _, text = data.decode("utf-8", "replace").partition("=")
        with closing(sqlite3.connect(folder / "library.sqlite", isolation_level=None)) as base:
            base.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)", [(k, json.dumps(v)) for k, v in about.items()]
            )
            base.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, text))
        with open_library(folder) as library:
            found = (
                library.model,
                library.fingerprint,
                library.dim,
                library.roots,
                library.state,
                list(library.blocks()),
            )
            library.noted("approximate")
            refused_or_not(own_model, folder, None)
        return found

    return [f"{key}={json.dumps(value)}".encode() for key, value in about.items()], read


# ---- what runs leave

EVALUATED = {
    "data": {"name": "ucf51-split1", "manifest": "f" * 16},
    "counts": {"test": {"videos": 9, "read": 8, "missing": 1, "corrupt": 0, "unreadable": {"v": "cut off"}}},
    "selection": "last",
    "recognition": {
        "top1": 60.0,
        "per_class": {"a": {"top1": 50.0, "videos": 4}, "b": {"top1": 70.0, "videos": 5}},
    },
}


def run_of(folder: Path, **more: Any) -> Path:
    """A run of a benchmark, and the baseline's."""
    write_cell(folder / "bench", "baseline", "", 0, top1=50.0)
    run = write_cell(folder / "bench", "ccl", "AI", 0, top1=60.0, retrieval=(50, 60, 70), changed={"ccl": {}})
    for each in (folder / "bench").iterdir():
        (each / "eval-ucf51-split1-test.json").write_text(json.dumps(EVALUATED))
        (each / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5, "ce": 1.0, "accuracy": 0.5}\n' * 2)
    return run


def everything(run: Path) -> Callable[[], object]:
    """All reports of the runs beside this one."""
    from ccl_cli.bench.cell import reason
    from ccl_cli.deploy.card import figures
    from ccl_cli.report import classes, curves, latex, markdown, paired, provenance, records, terminal
    from ccl_cli.report.collect import collect
    from ccl_cli.report.study import study
    from ccl_cli.report.table import summarise, tables
    from ccl_cli.training.runs import RunFolder

    def read() -> None:
        reason(run)
        RunFolder(run).finished  # noqa: B018
        RunFolder(run).truncate_metrics(5)
        figures(RunFolder(run))
        collected = collect([run.parent])
        summary = summarise(collected)
        found = tables(summary, (), (), printed=True)
        terminal.table(found, summary, runs=True, plain=True, width=80)
        for write in markdown.table, records.table_csv, records.table_json, latex.table:
            write(found, summary)
        studied = study([run.parent], "test")
        for tell in (
            provenance.evaluated,
            provenance.heard,
            provenance.unreadable,
            provenance.versions,
            provenance.runs,
        ):
            tell(studied)
        provenance.selections(studied)
        for draw in curves.figure, classes.figure:
            refused_or_not(draw, studied)
        refused_or_not(
            lambda: paired.compare(summarise(paired.only(collected, "ccl", "baseline")), "ccl", "baseline")
        )

    return read


@reader("summaries of runs", 250, quick=10)
def _summaries(folder: Path) -> Reading:
    run = run_of(folder)
    data = {
        "name": "ucf51-split1",
        "manifest": "f" * 16,
        "train": 9,
        "seen": 8,
        "missing": ["a"],
        "unreadable": {"b": "cut off"},
    }
    data["modalities"] = {"audio:cnn14": {"present": 7, "silent": 1}}
    seed = json.loads((run / "summary.json").read_text()) | {
        "data": data,
        "versions": {"torch": "2.11"},
        "device": "cpu",
    }
    seed["teachers"] = {"audio:cnn14": {"dim": 512, "fingerprint": "x", "variant": "v"}}
    return [seed], to_file(run / "summary.json", everything(run))


@reader("evaluations of runs", 200, quick=10)
def _evaluations(folder: Path) -> Reading:
    run = run_of(folder)
    return [EVALUATED], to_file(run / "eval-ucf51-split1-test.json", everything(run))


@reader("places of runs in a benchmark", 200, quick=8)
def _cells(folder: Path) -> Reading:
    run = run_of(folder)
    return [json.loads((run / "cell.json").read_text())], to_file(run / "cell.json", everything(run))


@reader("reasons why runs failed", 100, quick=8)
def _errors(folder: Path) -> Reading:
    run = run_of(folder)
    (run / "summary.json").unlink()
    return [{"message": "The loss is not finite.", "hint": None, "exit_code": 1}], to_file(
        run / "error.json", everything(run)
    )


@reader("metrics of runs", 100, quick=8)
def _metrics(folder: Path) -> Reading:
    run = run_of(folder)
    seed = Lines({"step": step, "loss": 2.5, "ce": 1.0 / step, "accuracy": 0.5} for step in (1, 2, 3))
    return [seed], to_file(run / "metrics.jsonl", everything(run))


@reader("recipes of runs", 100, quick=8)
def _run_recipes(folder: Path) -> Reading:
    run = run_of(folder)
    return [RECIPE, (run / "recipe.yaml").read_bytes()], to_file(run / "recipe.yaml", everything(run))


@reader("how teachers go with classes", 300)
def _correspondences(folder: Path) -> Reading:
    from ccl_cli.evaluation import correspondence

    run = write_run(folder / "run", top1=50.0)
    sample = {"video": "a/1", "label": "a", "verdict": "knows", "top": [["dog", 50.0], ["cat", 2.0]]}
    seed = {"key": None, "probe": {"x": 1}, "samples": [sample], "silent": ""}
    path = correspondence._path(correspondence.RunFolder(run), "audio:cnn14", "test")
    path.parent.mkdir(exist_ok=True)
    return [seed], to_file(path, lambda: correspondence.kept(run, "audio:cnn14", "test"))


# ---- plugins


@reader("entry_points.txt of plugins", 6_000)
def _entry_points(folder: Path) -> Reading:
    for name in ("broken-1.0", "sound-2.0"):
        (folder / f"{name}.dist-info").mkdir()
        (folder / f"{name}.dist-info" / "METADATA").write_text("Name: x\n")
    (folder / "sound-2.0.dist-info" / "entry_points.txt").write_text(
        "[ccl.teachers]\naudio.good = json:loads\n"
    )
    seed = b"[console_scripts]\nx = y:main\n[ccl.teachers]\naudio.bad = bad.mod:Teacher\nimage.bad=bad:T [extra]\n\n[ccl.methods]\nmine = json:loads\n"

    def scan() -> object:
        found = registry._scan.__wrapped__((str(folder),))
        assert any(plugin.name == "audio.good" for plugin in found.plugins), "the other plugin is gone"
        declared = [plugin for plugin in found.plugins if plugin.distribution == "broken"]
        for problem in found.problems:
            assert problem.isprintable(), problem[:200]
            assert len(problem) <= _LONGEST, f"{len(problem)} letters"
        for plugin in declared:
            _ = plugin.label, plugin.origin, plugin.importable
            try:
                registry.load(plugin)
            except CclError as error:
                check_sentences(error)
        return declared

    return [seed], to_file(folder / "broken-1.0.dist-info" / "entry_points.txt", scan)


@pytest.mark.parametrize("each", READERS, ids=lambda each: each.begin.__name__.strip("_"))
def test_readers(each, tmp_path, tally, trials):
    seeds, read = each.begin(tmp_path)
    for seed in seeds:
        read(plain(seed))  # valid as it is, so that what is tried comes as far as it can
    for number in trials(each.quick, each.long):
        data = odd(seeds, Random(number))
        with tally.trial(each.what, number):
            check(read, data, each.seconds)


BROKE = [
    (_run_recipes, b"- " * 200_000),
    (_recipes, b"[" * 5_000),
    (_recipes, b"name: !!int ''\n"),
    (_recipes, b"a: &a [*a]\n"),
    (_overrides, b"name=" + b"9" * 20_000),
    (_specs, b"audio:x?x=2001-99-99"),
    (_specs, b"audio:x?x=" + b"[" * 5_000),
    (_specs, b"folder:x?test=.inf&val=1e-3"),
    (_seeds, b"9" * 30),
    (_manifests, b"[" * 100_000),
    (_tables, b"path,label\n1.mp4," + b"9" * 5_000 + b"\n2.mp4,1\n"),
    (_tables, b"path,label\na\0b.mp4,x\n"),
    (_index, b'{"format": "ccl-shards-1", "shards": [], "samples": [{"shard": 1e999}], "videos": []}'),
    (_precomputed, b'["\\ud800", "b"]'),
    (_ucf, b"Biking/\xff.avi\n"),
    (_records, b'{"format": "ccl-packed-1", "key": "k", "picture": [], "sound": 1}'),
    (_caches, b"null"),
    (_fitted, b"[]"),
    (_described, b'{"model": "m", "videos": "v", "unreadable": []}'),
    (_precomputed, b"0.5"),
    (_libraries, b"dim=[]"),
    (_summaries, b'{"data": [1], "teachers": [2], "versions": 3, "evaluation": {"a-test": 0.5}}'),
    (_evaluations, b'{"counts": 1, "data": [], "recognition": {"per_class": [1]}}'),
    (_cells, b'{"seed": {}, "method": "' + b"x" * 40_000 + b'"}'),
    (_metrics, b'{"step": 1, "loss": 1}\n\xff\n' + b"[" * 100_000),
    (_entry_points, b"[ccl.teachers]\nx" + b"\t" * 20_000 + b"\n"),
]


@pytest.mark.parametrize(("begin", "data"), BROKE, ids=[each.__name__.strip("_") for each, _ in BROKE])
def test_what_once_broke(begin, data, tmp_path, tally):
    _, read = begin(tmp_path)
    with tally.trial("what once broke", begin.__name__):
        check(read, data)


# ---- the same through the command line: what is read, the file below the folder ("" for what is typed), the words

COMMANDS = [
    (_recipes, "r.yaml", "recipes check {}/r.yaml"),
    (_recipes, "r.yaml", "recipes show {}/r.yaml"),
    (_overrides, "", "recipes show smoke --set TEXT"),
    (_options, "", "data stats TEXT"),
    (_manifests, "m.jsonl", "data stats manifest:{}/m.jsonl"),
    (_tables, "v.csv", "data stats csv:{}/v.csv"),
    (_vggsound, "vggsound.csv", "data stats vggsound:{}"),
    (_ucf, "ucfTrainTestlist/trainlist01.txt", "data stats ucf101:{}"),
    (_activitynet, "activity_net.v1-3.min.json", "data stats activitynet:{}"),
    (_index, "index.json", "data stats shards:{}"),
    (_caches, "cache.json", "cache ls"),
    (_caches, "cache.json", "cache verify"),
    (_summaries, "bench/final-ccl-AI-s0/summary.json", "report table {}/bench --runs"),
    (_evaluations, "bench/final-ccl-AI-s0/eval-ucf51-split1-test.json", "report figure classes {}/bench --output {}/c.svg"),
    (_cells, "bench/final-ccl-AI-s0/cell.json", "report compare ccl baseline {}/bench"),
    (_metrics, "bench/final-ccl-AI-s0/metrics.jsonl", "report figure curves {}/bench --output {}/c.svg"),
    (_run_recipes, "bench/final-ccl-AI-s0/recipe.yaml", "report table {}/bench --format markdown"),
    (_entry_points, "broken-1.0.dist-info/entry_points.txt", "plugins ls"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("begin", "file", "words"), COMMANDS, ids=[f"{each[2][:12]} {each[0].__name__}" for each in COMMANDS]
)
def test_commands(begin, file, words, tmp_path, tally, trials, ccl, monkeypatch):  # noqa: F811
    folder = tmp_path / "cache" / "embeddings" / "one"
    folder.mkdir(parents=True)
    seeds, _ = begin(folder)
    monkeypatch.syspath_prepend(str(folder))
    for number in trials(2, 25):
        data = odd(seeds, Random(number))
        text = data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
        if file:
            (folder / file).write_bytes(data)
        registry._scan.cache_clear()
        with tally.trial("the same through commands, in this process", f"{words}, {number}"):
            result = ccl(*(word.replace("{}", str(folder)).replace("TEXT", text) for word in words.split()))
            assert result.code in (0, 2, 3, 4, 5, 6), f"exit code {result.code}: {result.err[-300:]}"
            assert not re.search("Traceback|Internal error", result.out + result.err), result.err[-300:]
            assert result.err or not result.code, "no sentence"
    registry._scan.cache_clear()
