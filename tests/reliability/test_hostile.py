"""Files and names that somebody made to do harm: refused in a sentence, nothing run, nothing written elsewhere."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ccl_cli.__main__ import main
from ccl_cli.config.load import load_recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.shards.index import read_manifest, read_shard
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.reader import _readers
from ccl_cli.data.video.storage import Member, Packed
from ccl_cli.errors import CclError, DataError, EnvironmentError_, RecipeError, WeightsError
from ccl_cli.teachers.embedding_cache import Cached
from ccl_cli.teachers.weights import WeightFile, load_state, pull
from ccl_cli.training import checkpoint
from ccl_cli.training.artefact import load_model
from ccl_cli.training.build import load_teachers, make_student
from ccl_cli.utils.download import download
from ccl_cli.utils.rows import csv_text
from tests.browser import browser
from tests.models import write_run
from tests.reliability.tally import full
from tests.web import Server, serving

MARK = "written-by-a-payload"


# ---- pickles


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, way: int) -> None:
        self.way = way

    def __reduce__(self):
        return [
            lambda: (os.system, (f"touch {MARK}",)),
            lambda: (open, (MARK, "w")),
            lambda: (eval, (f"open('{MARK}', 'w')",)),
            lambda: (exec, (f"open('{MARK}', 'w')",)),
            lambda: (os.mkdir, (MARK,)),
            lambda: (subprocess.Popen, ((["touch", MARK]),)),
            lambda: (Path.touch, (Path(MARK),)),
            lambda: (pickle.loads, (pickle.dumps(Payload(1)),)),
            lambda: (torch.load, (MARK,)),
            lambda: (getattr, (os, "system")),
            lambda: (np.load, (MARK,)),
            lambda: (__import__, ("antigravity",)),
        ][self.way]()


WAYS = 9


def raw(path: Path, content: object, protocol: int) -> None:
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def zipped(path: Path, content: object, protocol: int) -> None:
    torch.save(content, path, pickle_protocol=max(2, protocol))


def legacy(path: Path, content: object, protocol: int) -> None:
    torch.save(content, path, pickle_protocol=max(2, protocol), _use_new_zipfile_serialization=False)


def table(path: Path, content: object, protocol: int) -> None:
    array = np.empty(1, object)
    array[0] = content
    with path.open("wb") as file:
        np.savez(file, names=np.array(["a"]), embedding=array)


def array_file(path: Path, content: object, protocol: int) -> None:
    array = np.empty(1, object)
    array[0] = content
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def wrapped(way: int, how: int) -> object:
    """A payload within what a checkpoint may hold."""
    payload, tensor = Payload(way), torch.zeros(2)
    return [
        payload,
        {"a": tensor, "b": payload},
        {"state_dict": {"a": tensor}, "args": payload},
        [tensor, payload],
    ][how]


def of_teacher(name: str) -> Callable[[Path], object]:
    return lambda path: load_teachers([f"{name}@{path}"])


def of_student(name: str) -> Callable[[Path], object]:
    return lambda path: make_student(f"{name}@{path}", 2)


def state_of(path: Path) -> object:
    return checkpoint.load_state(path.parent)


def cache_with(path: Path) -> object:
    header = {
        "format": "ccl-embeddings-2",
        "states": ["present", "absent", "silent", "no track", "unreadable"],
    }
    header |= {"key": dict.fromkeys(("teacher", "fingerprint", "data", "files", "views"), "x"), "videos": 1}
    header |= {"count": 1, "dim": 1, "kind": "", "sha256": "", "built": "", "unreadable": {}}
    header |= {"inexact": 0, "frames": 0}
    (path.parent / "cache.json").write_text(json.dumps(header))
    return Cached.open(path.parent)


FORMS = [raw, zipped, legacy]
# Where files are read: their name there, in what forms, and by whom.
READERS: dict[str, tuple[str, list[Callable[[Path, object, int], None]], Callable[[Path], object]]] = {
    "weights .pth": ("w.pth", FORMS, load_state),
    "weights .bin": ("w.bin", FORMS, load_state),
    "weights .safetensors": ("w.safetensors", FORMS, load_state),
    "teacher audio:cnn14": ("w.pth", FORMS, of_teacher("audio:cnn14")),
    "teacher audio:small": ("w.safetensors", FORMS, of_teacher("audio:small")),
    "teacher image:resnet34": ("w.pth", FORMS, of_teacher("image:resnet34")),
    "teacher precomputed .npz": ("w.npz", [table, *FORMS], of_teacher("audio:precomputed")),
    "teacher precomputed .safetensors": ("w.safetensors", FORMS, of_teacher("audio:precomputed")),
    "student": ("w.pt", FORMS, of_student("r2plus1d_tiny")),
    "student from the hub": ("w.pyth", FORMS, of_student("x3d_xs")),
    "model": ("model.safetensors", FORMS, load_model),
    "checkpoint": ("state/step-000000001.pt", FORMS, state_of),
    "cache": ("cache/embedding.npy", [array_file, *FORMS], cache_with),
}


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            place, marks=pytest.mark.slow if "hub" in place or "resnet" in place or "cnn14" in place else ()
        )
        for place in READERS
    ],
)
def test_no_pickle_is_run(tally, trials, place, tmp_path):
    name, forms, read = READERS[place]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    for number in trials(2, 40):
        rng = random.Random(f"{place} {number}")
        form, way, how, protocol = rng.choice(forms), rng.randrange(WAYS), rng.randrange(4), rng.randrange(6)
        with tally.trial(
            "pickle that writes a file, as weights, a table, a checkpoint or a cache", f"{place} {number}"
        ):
            form(path, wrapped(way, how), protocol)
            with pytest.raises(CclError) as refused:
                read(path)
            assert refused.value.exit_code in (4, 6), refused.value
            assert not Path(MARK).exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of files that it leaves open
def test_the_payloads_work():
    """They would write the file, if somebody unpickled them."""
    for way in (1, 2, 3, 4, 7):
        pickle.loads(pickle.dumps(Payload(way)))
        assert Path(MARK).exists()
        shutil.rmtree(MARK) if Path(MARK).is_dir() else Path(MARK).unlink()


# ---- tensors


@contextmanager
def little_memory(more: int = 3 << 30) -> Iterator[None]:
    """No more than so many bytes above what is in use: who believes a lying header fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def lying_safetensors(rng: random.Random) -> bytes:
    """A header that is not true, before a few bytes."""
    kind = rng.randrange(9)
    huge = rng.choice([2**31, 2**40, 2**62, 2**63, 2**64 - 1, -1])
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header: object = {"a": entry}
    if kind == 0:
        entry["shape"] = [huge, huge]
    elif kind == 1:
        entry["data_offsets"] = [0, huge]
    elif kind == 2:
        entry["data_offsets"] = [huge, 8]
    elif kind == 3:
        entry["dtype"] = rng.choice(["F999", "", 7, None, "object", "O"])
    elif kind == 4:
        header = {"a": entry, "b": {**entry, "data_offsets": [4, 12]}}
    elif kind == 5:
        header = {"__metadata__": {"ccl": rng.choice([7, None, [1], {"a": "b"}])}, "a": entry}
    elif kind == 6:
        header = rng.choice([[], "x", 7, None, {}, {"a": 7}, {"a": {}}, {"__metadata__": 7}])
    text = json.dumps(header).encode()
    if kind == 7:
        text = b'{"a":' * rng.randrange(100, 200_000)
    size = len(text) if kind != 8 else huge % 2**64
    return struct.pack("<Q", size) + text + bytes(8)


def model_with(path: Path, header: object) -> None:
    text = header if isinstance(header, str) else json.dumps(header)
    save_file({"a": torch.zeros(2)}, path, {"ccl": text})


def odd_header(rng: random.Random, valid: dict) -> object:
    """A header of ours in which something is wrong or far too large."""
    kind, deep = rng.randrange(8), "[" * rng.randrange(1000, 300_000)
    if kind == 0:
        return deep
    if kind == 1:
        return json.dumps(valid)[:-1] + ', "more": ' + deep
    if kind == 2:
        return {**valid, "padding": "x" * rng.randrange(1 << 20, 20 << 20)}
    if kind == 3:
        return {**valid, "classes": rng.choice([7, None, [], [7], {"a": 1}, "ab", [["a"]]])}
    if kind == 4:
        students = [
            "os:system",
            "../../x",
            "nothing",
            "r2plus1d_tiny?width=1e9",
            "r2plus1d_tiny?x=1",
            "",
            "a@b?c=d",
        ]
        return {**valid, "recipe": {**valid["recipe"], "student": rng.choice(students)}}
    if kind == 5:
        return {**valid, "recipe": rng.choice([7, None, [], {}, {"name": "../x"}, {"method": [[[]]]}])}
    if kind == 6:
        return {**valid, "format": rng.choice(["ccl-model-2", 7, None, []])}
    return rng.choice(["", "{", "7", "null", "[]", '"x"', "{}", "\x00", "nan"])


def test_headers_may_lie(tally, trials, clips_folder, tmp_path):
    """In safetensors' own header, and in ours within it."""
    run = write_run(tmp_path / "run", clips_folder / "set")
    valid = load_model(run / "model.safetensors").header
    fitted = {"format": "ccl-teacher-1", "recipe": {}}
    readers = {
        "weights": load_state,
        "model": load_model,
        "teacher that was fitted": of_teacher("image:small"),
        "table": of_teacher("audio:precomputed"),
        "student": of_student("r2plus1d_tiny"),
    }
    path = tmp_path / "x.safetensors"
    for number in trials(12, 600):
        rng = random.Random(number)
        name = rng.choice(list(readers))
        with tally.trial("safetensors with a lying header", f"{name} {number}"), little_memory():
            path.write_bytes(lying_safetensors(rng))
            with pytest.raises(CclError) as refused:
                readers[name](path)
            assert refused.value.exit_code in (4, 6), refused.value
        with tally.trial("our own header in a model: huge, nested, of other types", number), little_memory():
            whose = rng.choice(["model", "teacher that was fitted"])
            model_with(path, odd_header(rng, valid if whose == "model" else {**valid, **fitted}))
            with pytest.raises(CclError) as refused:
                readers[whose](path)
            assert refused.value.exit_code in (2, 3, 5, 6), refused.value


@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_a_few_bytes_do_not_become_a_huge_tensor(tally, tmp_path):
    cases = {
        "expanded": {"a": torch.zeros(1).expand(10**6, 10**6)},
        "many names": {f"{n}": torch.zeros(1).expand(10**4, 10**4) for n in range(9)},
        "sparse": {
            "a": torch.sparse_coo_tensor(
                torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (10**6, 10**6), check_invariants=True
            )
        },
        "without storage": {"a": torch.zeros(10**6, 10**6, device="meta")},
        "quantised": {"a": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)},
    }
    for name, state in cases.items():
        with (
            tally.trial("pickle of tensors that are larger than their file, or of no plain kind", name),
            little_memory(),
        ):
            torch.save(state, tmp_path / "w.pth")
            with pytest.raises(WeightsError):
                load_state(tmp_path / "w.pth")
    with (
        tally.trial("pickle of tensors that are larger than their file, or of no plain kind", "npz"),
        little_memory(),
    ):
        with zipfile.ZipFile(tmp_path / "t.npz", "w") as file:
            shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
            head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + shape.ljust(117).encode() + b"\n"
            file.writestr("a.npy", head + bytes(64))
        with pytest.raises(DataError):
            load_teachers([f"audio:precomputed@{tmp_path / 't.npz'}"])


# ---- archives


def hostile_tar(path: Path, rng: random.Random) -> None:
    """Names that lead elsewhere, links, devices, and sizes that are not true."""
    record = json.dumps(
        {"rows": [], "sha256": "", "picture": {"pts": [0], "end_pts": 1, "time_base": [1, 25]}, "sound": None}
    )
    with tarfile.open(path, rng.choice(["w", "w", "w:gz", "w:xz"]), format=tarfile.GNU_FORMAT) as tar:
        for _ in range(rng.randrange(1, 4)):
            name = rng.choice(
                ["../x.json", "/tmp/ccl-hostile.json", "a.json", "a/../../b.json", "a.jpgs", ".", "x" * 300]
            )
            entry = tarfile.TarInfo(name)
            entry.type = rng.choice(
                [tarfile.REGTYPE] * 4
                + [
                    tarfile.SYMTYPE,
                    tarfile.LNKTYPE,
                    tarfile.CHRTYPE,
                    tarfile.FIFOTYPE,
                    tarfile.DIRTYPE,
                    tarfile.GNUTYPE_SPARSE,
                ]
            )
            entry.linkname = rng.choice(["/etc/passwd", "../../secret", "a.json"])
            data = rng.choice([record, record[:-9], "[" * 100_000, "7", "{}", "[]", ""]).encode()
            entry.size = len(data) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(data))
    if rng.random() < 0.4:  # a size that is not true, with its sum of checks put right
        block = bytearray(path.read_bytes())
        block[124:136] = rng.choice([b"77777777777\0", b"\x80" + bytes(3) + b"\xff" * 8, b"-0000000001\0"])
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block[:512])
        path.write_bytes(block)


def test_hostile_shards_write_nothing_and_read_nothing_else(tally, trials, tmp_path):
    for number in trials(20, 2000):
        rng, folder = random.Random(number), tmp_path / "in" / "set"
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tally.trial("shard whose members lead elsewhere, are links, devices or of untrue size", number),
            little_memory(),
        ):
            hostile_tar(folder / "train-000000.tar", rng)
            with suppress(DataError):
                read_shard(folder / "train-000000.tar")
            assert [path.name for path in tmp_path.rglob("*")] == ["in", "set", "train-000000.tar"]
            assert not Path("/tmp/ccl-hostile.json").exists()


def odd(rng: random.Random, value: object) -> object:
    """The value with something in it replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return {**value, key: odd(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], odd(rng, value[place]), *value[place + 1 :]]
    return rng.choice(
        [None, -1, 0, 2**63, 1e400, "", "../x", [], {}, [[]], True, "a" * 9, [2**70], {"a": 1}, 0.5]
    )


def test_records_and_indexes_of_shards_may_lie(tally, trials, clips_folder, tmp_path):
    from ccl_cli.data.shards.encode import Settings
    from ccl_cli.data.shards.write import pack
    from ccl_cli.data.video.reader import read_frames

    pack(
        f"folder:{clips_folder / 'set'}",
        tmp_path / "set",
        Settings(short_side=16, fps=5),
        workers=0,
        shard_size=10**9,
        max_unreadable=0.5,
    )
    manifest = read_manifest(str(tmp_path / "set"))
    place = next(video.path for video in manifest.videos if isinstance(video.path, Packed))
    record, whole = json.loads(place.read("json")), json.loads((tmp_path / "set" / "index.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "set", other)
    for number in trials(60, 8000):
        rng = random.Random(number)
        with tally.trial("record of a packed video that makes no sense", number), little_memory():
            text = json.dumps(odd(rng, record)).encode()
            jpegs = place.read("jpgs")
            (tmp_path / "x.tar").write_bytes(text + jpegs)
            members = (Member("json", 0, len(text)), Member("jpgs", len(text), len(jpegs)))
            try:
                packed = Packed(str(tmp_path / "x.tar"), place.key, members)
                read_frames(packed, 0, 2)
            except DataError:
                pass
            finally:
                _readers.clear()
        if number % 4 == 0:
            with tally.trial("index of a set of shards that makes no sense", number):
                (other / "index.json").write_text(json.dumps(odd(rng, whole)))
                try:
                    for video in read_manifest(str(other)).videos:
                        assert (
                            not isinstance(video.path, Packed)
                            or not video.path.members
                            or Path(video.path.shard).parent == other
                        )
                except DataError:
                    pass


ESCAPES = [
    "../x",
    "a/../../x",
    "a/b/../../../x",
    "..",
    "./../x",
    "a/./../../x",
    "../../../../etc/passwd",
    "a/../..",
    "../set/../x",
]


def test_manifests_keep_to_their_root(tally, tmp_path):
    header = {"format": "ccl-manifest-1", "name": "x", "classes": ["a", "b"], "videos": 1}
    for path in ESCAPES:
        with tally.trial("manifest whose paths leave its root", path):
            row = {"id": "a", "path": path, "label": 0, "split": "train"}
            (tmp_path / "m.jsonl").write_text(json.dumps(header) + "\n" + json.dumps(row) + "\n")
            with pytest.raises(DataError, match="leaves the folder"):
                Manifest.load(tmp_path / "m.jsonl")
    for text in ("[" * 100_000, json.dumps(header)[:-1] + ', "a": ' + "[" * 100_000):
        with tally.trial("manifest nested too deeply", len(text)):
            (tmp_path / "m.jsonl").write_text(text)
            with pytest.raises(CclError) as refused:
                load_data(f"manifest:{tmp_path / 'm.jsonl'}")
            assert refused.value.exit_code == 4


def test_lists_are_unpacked_into_their_own_folder(tally, monkeypatch, tmp_path):
    from ccl_cli.data.checks.prepare import fetch_list
    from ccl_cli.data.sources.about import ListFile

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    names = [
        "../x.txt",
        "/abs.txt",
        "a/../../x.txt",
        "lists/../x.txt",
        "C:\\x.txt",
        "..\\x.txt",
        "lists/a.txt",
    ]
    with serving(Server()) as server:
        for name in names:
            with tally.trial("zip of split lists with names that lead elsewhere, and with links", name):
                packed = io.BytesIO()
                with zipfile.ZipFile(packed, "w") as file:
                    file.writestr(name, "text")
                    link = zipfile.ZipInfo("lists/link.txt")
                    link.external_attr = 0o120777 << 16
                    file.writestr(link, "/etc/passwd")
                server.pages["/lists.zip"] = packed.getvalue()
                place = tmp_path / "in" / "here" / "lists"
                fetch_list(ListFile("lists", "lists", f"{server.address}/lists.zip"), place)
                inside = {path for path in tmp_path.rglob("*") if place in path.parents}
                assert set(tmp_path.rglob("*")) - inside == {
                    tmp_path / "in",
                    place.parent,
                    place,
                }
                assert not any(path.is_symlink() for path in inside)
                shutil.rmtree(tmp_path / "in")


# ---- text that would construct, command or leave


TAGS = [
    f"!!python/object/apply:os.system ['touch {MARK}']",
    f"!!python/object/apply:builtins.open ['{MARK}', w]",
    f"!!python/object/new:os.system ['touch {MARK}']",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "!!python/object:argparse.Namespace {a: 1}",
    "!!python/tuple [1]",
    "!mine x",
    "&a [*a]",
    "[&a [x, x], &b [*a, *a], &c [*b, *b], &d [*c, *c]]",
]
KEYS = [
    "name",
    "data",
    "teachers",
    "student",
    "method",
    "clip",
    "optim",
    "train",
    "bench",
    "holdout",
    "extends",
]


def test_yaml_constructs_no_objects(tally, tmp_path):
    from ccl_cli.report.collect import _recipe

    path = tmp_path / "r.yaml"
    for tag in TAGS:
        for key in KEYS[:: 1 if full() else 4]:
            with tally.trial(
                "YAML tag or alias in a recipe, a run's recipe, --set or an option", f"{key}: {tag}"
            ):
                path.write_text(f"{key}: {tag}\n")
                with pytest.raises(RecipeError):
                    load_recipe(str(path))
                with pytest.raises(RecipeError):
                    _recipe(path)
                with pytest.raises(RecipeError):
                    load_recipe("smoke", {}, [f"{key}={tag}"])
                assert not Path(MARK).exists()
        with tally.trial(
            "YAML tag or alias in a recipe, a run's recipe, --set or an option", f"option {tag}"
        ):
            with suppress(CclError):
                parse_model(f"image:small?size={tag}")
            assert not Path(MARK).exists()


def test_a_recipes_name_stays_in_its_folder(tally, tmp_path):
    for name in ("..", ".", "../x", "/tmp/x", "a/b", "...", "", "a\\..\\b", "a\n", "~"):
        (tmp_path / "r.yaml").write_text(json.dumps({"name": name}))
        with tally.trial("recipe whose name leads elsewhere", repr(name)), pytest.raises(RecipeError):
            load_recipe(str(tmp_path / "r.yaml"))


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://x")',
    "\n=1",
    "-2+3+cmd|' /C calc'!A0",
]


def test_no_cell_of_a_csv_is_a_formula(tally, trials):
    for number in trials(50, 20_000):
        rng = random.Random(number)
        text = (
            rng.choice(FORMULAS)
            if rng.random() < 0.5
            else "".join(
                chr(rng.choice([9, 10, 13, 32, 34, 39, 43, 44, 45, 61, 64, 97, 0x202E, 27])) for _ in range(4)
            )
        )
        with tally.trial("label or file name that is a formula, in CSV", repr(text)):
            (row,) = csv.reader(io.StringIO(csv_text([[text, 1, text]])))
            assert row[1] == "1"
            assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
            assert text.strip() in row[0] or not text.isprintable()


NAMES = [
    "\x1b]0;pwned\x07",
    "\x1b[2J\x1b[31mred",
    "a\rError: none",
    "b\x08\x08\x08c",
    "[bold]x",
    "[link=http:..x]y",
    "\x9b31mc1",
    "\u202egnp.exe",
    "$(touch x)",
    "-rf",
    "<script>alert(1)<",
    "%s%n{0}",
    "=1+1",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
def test_names_do_not_command_the_terminal(tally, clips_folder, monkeypatch, tmp_path, terminal):
    """Class folders and files of all these names; what commands print holds no sign that a terminal obeys."""
    monkeypatch.setenv("TERM", "xterm")
    sources = sorted((clips_folder / "set" / "train").rglob("*.mp4"))
    for number, name in enumerate(NAMES):
        for split in ("train", "test"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            shutil.copy(sources[number % len(sources)], folder / f"{name}.mp4")
        (tmp_path / "set" / "train" / name / f"{name}bad.mp4").write_text("no video")
    (tmp_path / "list.csv").write_text("path,label\n\x1b[31mx.mp4,a\n")
    commands = {
        "data prepare": (
            "data",
            "prepare",
            "folder:set",
            "--output",
            "m.jsonl",
            "--workers",
            "1",
            "--per-class",
        ),
        "data stats": ("data", "stats", "folder:set", "--workers", "1", "--per-class"),
        "data verify": ("data", "verify", "folder:set", "--workers", "1"),
        "a folder that is not there": ("data", "stats", "folder:\x1b[31m"),
        "a data source that is not there": ("data", "stats", "\x1b[31m:x"),
        "a recipe that is not there": ("recipes", "show", "\x1b]0;pwned\x07"),
        "a run that is not there": ("eval", "\x1b]0;pwned\x07[/]"),
        "a command that is not there": ("\x1b]0;pwned\x07",),
        "a csv of odd names": ("data", "stats", "csv:list.csv", "--workers", "1"),
    }
    for what, words in commands.items():
        with tally.trial(
            "terminal escapes and markup in labels and file names", f"{what}, terminal: {terminal}"
        ):
            out, err = (Terminal() if terminal else io.StringIO() for _ in range(2))
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", err)
            code = main(list(words))
            monkeypatch.undo()
            monkeypatch.chdir(tmp_path)
            monkeypatch.setenv("CCL_HOME", str(tmp_path / "cache"))
            monkeypatch.setenv("TERM", "xterm")
            said = out.getvalue() + err.getvalue()
            assert "Internal error" not in said, said
            assert code in (0, 2, 3, 4, 5), said
            ours = re.sub(r"\x1b\[(\d+(;\d+)*)?[mKAGJHl?h]|\x1b\[\?25[lh]", "", said) if terminal else said
            wrong = sorted(
                {sign for sign in ours if not sign.isprintable() and sign not in "\n"}
                - ({"\r"} if terminal else set())
            )
            assert not wrong, (wrong, said)
            assert "\x1b[2J" not in said
            assert "\x1b[31mred" not in said


# ---- addresses


SCHEMES = [
    "file:///etc/passwd",
    "ftp://x/y",
    "data:text/plain,x",
    "gopher://x",
    "HTTP+unix://x",
    "javascript:1",
    "//x/y",
    "x",
    "",
    "jar:http://x!/y",
    " http://x/y",
]


def test_only_http_is_downloaded(tally, monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for variable in ("CCL_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    with serving(Server()) as server:
        for number, address in enumerate(SCHEMES):
            with tally.trial("download from an address that is neither http nor https", address):
                with pytest.raises(EnvironmentError_):
                    pull(WeightFile("w.pth", address))
                assert not list(tmp_path.rglob("w.pth*"))
            if "://" in address and not address.startswith(" "):
                server.redirects[f"/{number}"] = address
                with tally.trial("redirection to an address that is neither http nor https", address):
                    with pytest.raises((EnvironmentError_, OSError)):
                        download(f"{server.address}/{number}", tmp_path / "w")
                    assert not (tmp_path / "w").exists()


def test_other_bytes_than_the_published_ones_are_thrown_away(tally, trials, monkeypatch, tmp_path):
    import hashlib

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for variable in ("CCL_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    with serving(Server()) as server:
        for number in trials(8, 300):
            rng = random.Random(number)
            right = rng.randbytes(rng.randrange(1, 5000))
            sent = bytearray(right)
            if number % 3 == 0:
                sent[rng.randrange(len(sent))] ^= 1 << rng.randrange(8)
            elif number % 3 == 1:
                sent = sent[: rng.randrange(len(sent))] or bytearray(b"x")
            else:
                sent += rng.randbytes(rng.randrange(1, 50))
            if sent == right:
                continue
            server.pages["/w"] = bytes(sent)
            kind = rng.choice(["sha256", "md5", "sha1"])
            with tally.trial("download of other bytes than the published ones", number):
                with pytest.raises(WeightsError, match="not"):
                    pull(
                        WeightFile(
                            "w.pth", f"{server.address}/w", f"{kind}:{hashlib.new(kind, right).hexdigest()}"
                        )
                    )
                assert not list(tmp_path.rglob("w.pth*"))


def test_a_video_that_is_a_playlist_opens_nothing_else(tally, monkeypatch, tmp_path):
    from ccl_cli.data.video.reader import read_frames

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server()) as server:
        (tmp_path / "secret.ts").write_bytes(b"secret")
        texts = {
            "HLS": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{server.address}/a.ts\n#EXT-X-ENDLIST\n",
            "HLS of files": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n",
            "concat": f"ffconcat version 1.0\nfile '{server.address}/a.mp4'\n",
            "SDP": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {server.address[-5:]} RTP/AVP 96\n",
            "DASH": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{server.address}/</BaseURL></MPD>',
        }
        for name, text in texts.items():
            data = text.encode()
            (tmp_path / "x.mp4").write_bytes(data)
            place = Packed(str(tmp_path / "x.mp4"), "x", (Member("mp4", 0, len(data)), Member("json", 0, 0)))
            for path in (tmp_path / "x.mp4", place):
                with tally.trial("playlist that poses as a video", f"{name} {type(path).__name__}"):
                    with pytest.raises(DataError):
                        read_frames(path, 0, 1)
                    assert server.asked == []
        for name in (
            "pipe:0.mp4",
            "concat:x.mp4|y.mp4",
            "subfile,,start,0,end,9,,:x.mp4",
            "cache:x.mp4",
            "http:x.mp4",
        ):
            with tally.trial("file named like an address", name):
                Path(name).write_bytes(b"no video")
                with pytest.raises(DataError, match="complete media file"):
                    read_frames(Path(name), 0, 1)


# ---- pages


SCRIPTS = [
    "<script>document.title='pwned'<!-- -->",
    "<img src=x onerror=document.title='pwned'>",
    "\"><img src=x onerror=document.title='pwned'>",
    "'><svg onload=document.title='pwned'>",
    "</title><svg onload=document.title='pwned'>",
    "<iframe srcdoc='<img src=x onerror=parent.document.title=1>'>",
    "<base href=//127.0.0.1:{port}>",
    "<meta http-equiv=refresh content='0;url=http:{port}'>",
    "&lt;script&gt;document.title='pwned'",
    "<a href=javascript:document.title='pwned' autofocus onfocus=document.title='pwned'>x",
    "-->]]><svg onload=document.title='pwned'>",
    "{{constructor.constructor('document.title=1')()}}",
    "<style>@import 'http:{port}'",
    "<math><mtext><img src=x onerror=document.title='pwned'>",
]


@pytest.fixture(scope="module")
def browse(tmp_path_factory) -> Callable[[Path], str]:
    """The page as a browser has it once its scripts have run."""
    program = browser()
    profile = tmp_path_factory.mktemp("profile")

    def look(page: Path) -> str:
        options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        options += (
            f" --disable-component-update --disable-sync --user-data-dir={profile} --virtual-time-budget=2000"
        )
        command = [program, *options.split(), "--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    return look


def titles(dom: str) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", dom.partition("</head>")[0], re.DOTALL)


@pytest.mark.slow
def test_no_page_runs_what_names_hold(tally, browse, clips_folder, monkeypatch, tmp_path, capsys):
    """In a real browser: labels, file names, methods and figures; nothing runs and nobody is asked."""
    from tests.report.pages import write_study

    (tmp_path / "control.html").write_text(f"<title>x</title><body>{SCRIPTS[1]}</body>")
    assert titles(browse(tmp_path / "control.html")) == ["pwned"]  # unescaped, it runs
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server()) as server:
        port = server.address.rpartition(":")[2]
        scripts = [each.replace("{port}", port) for each in SCRIPTS]
        pages = {}
        for number in range(0, len(scripts), 2):
            pair = tuple(scripts[number : number + 2])
            folder = tmp_path / f"study-{number}"
            write_study(folder, clips_folder, pair, own=tuple(scripts))
            assert main(["report", "html", str(folder), "--output", f"{number}.html"]) == 0
            pages[f"report html, {pair}"] = Path(f"{number}.html")
        run = write_run(tmp_path / "run", clips_folder / "set")
        videos = tmp_path / "videos"
        videos.mkdir()
        source = next((clips_folder / "set").rglob("*.mp4"))
        for script in scripts:
            shutil.copy(source, videos / (script.replace("/", "") + ".mp4"))
        assert main(["index", str(videos), "--output", "library", "--model", str(run), "--workers", "0"]) == 0
        assert (
            main(["search", str(videos), "--index", "library", "--html", "found.html", "--workers", "0"]) == 0
        )
        pages["search --html"] = Path("found.html")
        for what, page in pages.items():
            with tally.trial("page with hostile labels and file names, in a browser", what):
                dom = browse(page.resolve())
                assert titles(dom)
                assert "pwned" not in titles(dom)[0]
                assert not re.search(r'<\w+(\s+[\w:-]+="[^"]*")*\s+on\w+=', dom)
                assert server.asked == []
