"""Files and names that somebody made to do harm: refused in a sentence, nothing run, nothing written elsewhere."""

from __future__ import annotations

import gc
import io
import json
import pickle
import random
import re
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ccl_cli.__main__ import main
from ccl_cli.config.load import load_recipe
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.index import read_manifest, read_shard
from ccl_cli.data.shards.write import pack
from ccl_cli.data.video import reader
from ccl_cli.data.video.reader import read_frames
from ccl_cli.data.video.storage import Member, Packed
from ccl_cli.errors import CclError, DataError, RecipeError, WeightsError
from ccl_cli.teachers.embedding_cache import STATES, Cached
from ccl_cli.teachers.weights import load_state
from ccl_cli.training.build import load_teachers, make_student
from ccl_cli.training.run import checkpoint
from ccl_cli.training.run.artefact import load_model
from tests.helpers.web import Server, serving
from tests.reliability.bounds import bounded
from tests.reliability.damage import damaged_text, twist
from tests.reliability.processes import seeds

# ---- pickles

MARK = "written-by-a-payload"
PAYLOADS: list[tuple[Callable[..., object], tuple[object, ...]]] = [
    (open, (MARK, "w")),
    (subprocess.Popen, (["touch", MARK],)),
    (Path.touch, (Path(MARK),)),
]


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self):
        return PAYLOADS[self.number]


FORMS: list[Callable[[Path, object], None]] = [
    lambda path, content: path.write_bytes(pickle.dumps(content)),
    lambda path, content: torch.save(content, path),
    lambda path, content: torch.save(content, path, _use_new_zipfile_serialization=False),
]


def array_file(path: Path, content: object) -> None:
    array = np.empty(1, object)
    array[0] = content
    with path.open("wb") as file:
        if path.suffix == ".npy":
            np.save(file, array, allow_pickle=True)
        else:
            np.savez(file, names=np.array(["a"]), embedding=array)


def cache_with(path: Path) -> object:
    header = {"format": "ccl-embeddings-2", "states": STATES, "kind": "", "sha256": "", "built": ""}
    header |= {"videos": 1, "count": 1, "dim": 1, "inexact": 0, "frames": 0, "unreadable": {}}
    header["key"] = dict.fromkeys(("teacher", "fingerprint", "data", "files", "views"), "x")
    (path.parent / "cache.json").write_text(json.dumps(header))
    return Cached.open(path.parent)


def teacher(name: str) -> Callable[[Path], object]:
    return lambda path: load_teachers([f"{name}@{path}"])


def student(name: str) -> Callable[[Path], object]:
    return lambda path: make_student(f"{name}@{path}", 2)


# Where files are read: their name there, in what forms, and by whom.
READERS: dict[str, tuple[str, list[Callable[[Path, object], None]], Callable[[Path], object]]] = {
    "weights .pth": ("w.pth", FORMS, load_state),
    "weights .safetensors": ("w.safetensors", FORMS, load_state),
    "teacher audio:cnn14": ("w.pth", FORMS, teacher("audio:cnn14")),
    "teacher audio:small": ("w.safetensors", FORMS, teacher("audio:small")),
    "teacher image:resnet34": ("w.pth", FORMS, teacher("image:resnet34")),
    "precomputed .npz": ("w.npz", [array_file, *FORMS], teacher("audio:precomputed")),
    "precomputed .safetensors": ("w.safetensors", FORMS, teacher("audio:precomputed")),
    "student": ("w.pt", FORMS, student("r2plus1d_tiny")),
    "student of the hub": ("w.pyth", FORMS, student("x3d_xs")),
    "model": ("model.safetensors", FORMS, load_model),
    "checkpoint": ("state/step-000000001.pt", FORMS, lambda path: checkpoint.newest_state(path.parent)),
    "cache": ("cache/embedding.npy", [array_file, *FORMS], cache_with),
}
SLOW = ("teacher audio:cnn14", "teacher image:resnet34", "student of the hub")


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=pytest.mark.slow if place in SLOW else ()) for place in READERS]
)
@seeds(3, 24)
def test_no_pickle_is_run(tmp_path, place, seed):
    name, forms, read = READERS[place]
    rng = random.Random(f"{place} {seed}")
    path, payload, tensor = tmp_path / name, Payload(rng.randrange(len(PAYLOADS))), torch.zeros(2)
    path.parent.mkdir(exist_ok=True)
    contents = [payload, {"a": tensor, "b": payload}, {"state_dict": {"a": tensor}, "args": payload}]
    forms[seed % len(forms)](path, rng.choice(contents))
    with pytest.raises(CclError) as refused:
        read(path)
    assert refused.value.exit_code in (4, 6)
    assert not Path(MARK).exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # NumPy leaves a file open that is not in its format


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of files that it leaves open
@pytest.mark.parametrize("number", [0, 2])
def test_the_payloads_would_write_the_file(number):
    pickle.loads(pickle.dumps(Payload(number)))
    assert Path(MARK).exists()


# ---- tensors


def lying_safetensors(rng: random.Random) -> bytes:
    """A header that is not true, before a few bytes."""
    huge = rng.choice([2**31, 2**40, 2**62, 2**63, 2**64 - 1, -1])
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers = [
        {"a": {**entry, "shape": [huge, huge]}},
        {"a": {**entry, "data_offsets": [0, huge]}},
        {"a": {**entry, "dtype": rng.choice(["F999", "", 7, None])}},
        {"a": entry, "b": {**entry, "data_offsets": [4, 12]}},
        {"a": entry, "__metadata__": {"ccl": rng.choice([7, None, [1], {"a": "b"}])}},
        twist({"a": entry}, rng),
    ]
    text = json.dumps(rng.choice(headers)).encode("utf-8", "surrogatepass")
    text = rng.choice([text, text, b'{"a":' * 100_000])
    size = rng.choice([len(text), len(text), len(text), huge % 2**64])
    return struct.pack("<Q", size) + text + bytes(8)


TENSOR_READERS = {
    "weights": load_state,
    "model": load_model,
    "teacher": teacher("image:small"),
    "table": teacher("audio:precomputed"),
    "student": student("r2plus1d_tiny"),
}


@pytest.mark.parametrize("name", TENSOR_READERS)
@seeds(5, 100)
def test_headers_of_tensors_may_lie(tmp_path, name, seed):
    path = tmp_path / "x.safetensors"
    path.write_bytes(lying_safetensors(random.Random(f"{name} {seed}")))
    with bounded(), pytest.raises(CclError) as refused:
        TENSOR_READERS[name](path)
    assert refused.value.exit_code in (4, 6)


@pytest.fixture(scope="module")
def model_header(untrained_run) -> bytes:
    return json.dumps(load_model(untrained_run / "model.safetensors").header).encode()


@seeds(10, 200)
def test_our_own_header_may_lie(tmp_path, model_header, seed):
    rng, path = random.Random(seed), tmp_path / "x.safetensors"
    text = damaged_text(model_header, rng).decode("utf-8", "replace")
    text = rng.choice([text, text, text[:-1] + ', "more": ' + "[" * 100_000])
    path.write_bytes(save({"a": torch.zeros(2)}, {"ccl": text}))
    with bounded(10), pytest.raises(CclError):
        load_model(path)


@pytest.mark.filterwarnings("ignore:Sparse invariant")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (10**6, 10**6)),
        lambda: torch.zeros(10**6, 10**6, device="meta"),
        lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    ],
    ids=["expanded", "sparse", "without storage", "quantised"],
)
def test_a_few_bytes_do_not_become_a_huge_tensor(tmp_path, make):
    torch.save({"a": make()}, tmp_path / "w.pth")
    with bounded(), pytest.raises(WeightsError):
        load_state(tmp_path / "w.pth")


def test_a_few_bytes_do_not_become_a_huge_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as file:
        shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + shape.ljust(117).encode() + b"\n"
        file.writestr("a.npy", head + bytes(64))
    with bounded(), pytest.raises(DataError):
        load_teachers([f"audio:precomputed@{tmp_path / 't.npz'}"])


# ---- shards


def hostile_tar(path: Path, rng: random.Random) -> None:
    """Names that lead elsewhere, links, devices, and sizes that are not true."""
    names = ["../x.json", "/tmp/ccl-hostile.json", "a.json", "a/../../b.json", "a.jpgs", ".", "x" * 300]
    special = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE]  # fmt: skip
    texts = [b'{"rows": [], "sha256": "", "sound": null}', b"[" * 100_000, b"7", b"{}", b""]
    with tarfile.open(path, rng.choice(["w", "w", "w:gz"]), format=tarfile.GNU_FORMAT) as tar:
        for _ in range(rng.randrange(1, 4)):
            entry, data = tarfile.TarInfo(rng.choice(names)), rng.choice(texts)
            entry.type = rng.choice([tarfile.REGTYPE] * 4 + special)
            entry.linkname = rng.choice(["/etc/passwd", "../../secret", "a.json"])
            entry.size = len(data) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(data))
    if rng.random() < 0.4:  # a size that is not true, with its sum of checks put right
        block = bytearray(path.read_bytes())
        block[124:136] = rng.choice([b"77777777777\0", b"\x80" + bytes(3) + b"\xff" * 8, b"-0000000001\0"])
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block[:512])
        path.write_bytes(block)


@seeds(10, 300)
def test_hostile_shards_write_nothing_and_read_nothing_else(tmp_path, seed):
    folder = tmp_path / "in" / "set"
    folder.mkdir(parents=True)
    hostile_tar(folder / "train-000000.tar", random.Random(seed))
    with bounded(), suppress(DataError):
        read_shard(folder / "train-000000.tar")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "set", "train-000000.tar"]
    assert not Path("/tmp/ccl-hostile.json").exists()


@pytest.fixture(scope="module")
def shards(clips_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "set"
    small = Settings(short_side=16, fps=5)
    pack(f"folder:{clips_folder / 'set'}", folder, small, workers=0, shard_size=10**9, max_unreadable=0.5)
    return folder


@seeds(30, 500)
def test_records_of_packed_videos_may_lie(tmp_path, shards, seed):
    videos = [video.path for video in read_manifest(str(shards)).videos if isinstance(video.path, Packed)]
    record = damaged_text(videos[0].read("json"), random.Random(seed)) or b"{"
    frames = videos[0].read("jpgs")
    (tmp_path / "x.tar").write_bytes(record + frames)
    members = (Member("json", 0, len(record)), Member("jpgs", len(record), len(frames)))
    reader._readers = reader._ReaderCache()
    with bounded(), suppress(DataError):
        read_frames(Packed(str(tmp_path / "x.tar"), videos[0].key, members), 0, 2)


# ---- names


@pytest.mark.parametrize("name", ["..", ".", "../x", "/tmp/x", "a/b", "...", "", "a\\..\\b", "a\n", "~"])
def test_a_recipes_name_stays_in_its_folder(tmp_path, name):
    (tmp_path / "r.yaml").write_text(json.dumps({"name": name}))
    with pytest.raises(RecipeError):
        load_recipe(str(tmp_path / "r.yaml"))


NAMES = [
    "\x1b]0;pwned\x07", "\x1b[2J\x1b[31mred", "a\rError: none", "b\x08\x08\x08c", "[bold]x", "[link=http:..x]y", "\x9b31mc1", "\u202egnp.exe",
    "$(touch x)", "-rf", "<script>alert(1)<", "%s%n{0}", "=1+1",
]  # fmt: skip
PRINTING = [
    "data prepare folder:set --output m.jsonl --workers 1 --per-class",
    "data check csv:list.csv --workers 1",
    "data check folder:\x1b[31m",
    "recipes show \x1b]0;pwned\x07",
    "eval \x1b]0;pwned\x07[/]",
    "\x1b]0;pwned\x07",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("words", PRINTING)
def test_names_do_not_command_the_terminal(clips_folder, tmp_path, monkeypatch, words, stream):
    """What commands print of folders and files of all these names holds no sign that a terminal obeys."""
    source = next((clips_folder / "set").rglob("*.mp4"))
    for name in NAMES:
        for split in ("train", "test"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            (tmp_path / "set" / split / name / f"{name}.mp4").hardlink_to(source)
        (tmp_path / "set" / "train" / name / f"{name}bad.mp4").write_text("no video")
    (tmp_path / "list.csv").write_text("path,label\n\x1b[31mx.mp4,a\n")
    monkeypatch.setenv("TERM", "xterm")
    out, err = stream(), stream()
    with monkeypatch.context() as streams:
        streams.setattr(sys, "stdout", out)
        streams.setattr(sys, "stderr", err)
        code = main(words.split(" "))
    text = out.getvalue() + err.getvalue()
    assert code in (0, 2, 3, 4, 5), text
    assert "Internal error" not in text
    assert "\x1b[2J" not in text
    assert "\x1b[31mred" not in text
    if stream is Terminal:  # the progress bar and the tables are ours
        text = re.sub(r"\x1b\[(\d+(;\d+)*)?[mKAGJH]|\x1b\[\?25[lh]|\r", "", text)
    assert {sign for sign in text if not sign.isprintable()} <= {"\n"}


PLAYLISTS = {
    "x.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}/a.ts\n#EXT-X-ENDLIST\n",
    "x.ffconcat": "ffconcat version 1.0\nfile '{address}/a.mp4'\n",
    "x.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{address}/</BaseURL></MPD>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_video_that_is_a_playlist_opens_nothing_else(tmp_path, monkeypatch, name):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server()) as server:
        data = PLAYLISTS[name].format(address=server.address).encode()
        (tmp_path / name).write_bytes(data)
        packed = Packed(str(tmp_path / name), "x", (Member("mp4", 0, len(data)), Member("json", 0, 0)))
        for path in (tmp_path / name, packed):
            with pytest.raises(DataError):
                read_frames(path, 0, 1)
        assert server.asked == []


@pytest.mark.parametrize("name", ["pipe:0.mp4", "concat:x.mp4|y.mp4", "cache:x.mp4", "http:x.mp4"])
def test_a_file_that_is_named_like_an_address_is_a_file(name):
    Path(name).write_bytes(b"no video")
    with pytest.raises(DataError, match="complete media file"):
        read_frames(Path(name), 0, 1)
