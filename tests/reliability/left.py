"""What commands leave in a folder: whether all of it is whole, and all that a result consists of."""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import faiss
import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from ccl_cli.data.manifest import Manifest
from ccl_cli.search.store import open_library
from ccl_cli.teachers.embedding_cache import Cached, is_unfinished

# What tells a time, or where a run was.
_TIMES = {"clips_per_s", "data_wait", "seconds", "built", "mtime"}


def check_whole(folder: Path) -> None:
    """That every file that is there under its own name is complete.

    Raises:
        Exception: of whatever reads such a file, if it is not.
    """
    for path in _files(folder):
        _read(path)


def result(folder: Path) -> dict[str, Any]:
    """All that is in a folder but logs, locks and what tells a time: by path, as plain values or bytes."""
    return {path.relative_to(folder).as_posix(): _read(path) for path in _files(folder)}


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit."""
    return bool(_plain(one) == _plain(other))


def left_over(folder: Path) -> list[str]:
    """Temporary files, and folders of unfinished work."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name.endswith((".tmp", ".building", "-wal", "-shm", "-journal"))
        or (path.match("part-*") and path.is_file())
    )


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and not _of_no_account(path):
            yield path


def _of_no_account(path: Path) -> bool:
    building = is_unfinished(path.parent) and not path.match("part-*.safetensors")
    # The store of findings is a cache of what the files say; what it is used for is compared.
    return building or path.name == "log.txt" or path.name.startswith(("findings-", "library.sqlite-"))


def _read(path: Path) -> Any:
    read = _READERS.get(path.suffix)
    if read is None:
        raise AssertionError(f"nobody knows what '{path.name}' is")
    try:
        return read(path)
    except Exception as error:
        raise AssertionError(f"'{path.name}' is damaged: {type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    """The same with tensors as bytes, without times."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in _TIMES}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if torch.is_tensor(value):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value


def _lines(path: Path) -> list[Any]:
    if path.name != "metrics.jsonl":
        Manifest.load(path)
    return [_plain(json.loads(line)) for line in path.read_text().splitlines()]


def _shard(path: Path) -> bytes:
    with tarfile.open(path) as tar:
        assert tar.getmembers()
    return path.read_bytes()


def _array(path: Path) -> bytes:
    cached = Cached.open(path.parent)
    assert cached.checksum() == cached.header.sha256
    return path.read_bytes()


def _library(path: Path) -> Any:
    with open_library(path.parent) as library:
        assert library._base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = library._base.execute("SELECT path, size, windows, vector FROM video ORDER BY path").fetchall()
        return rows, library.roots, library.fingerprint


def _approximate(path: Path) -> int:
    return int(faiss.read_index(str(path)).ntotal)


def _clip(path: Path) -> bytes:
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0))
    return path.read_bytes()


_READERS = {
    ".pt": lambda path: _plain(torch.load(path, weights_only=True)),
    ".safetensors": lambda path: (_plain(load_file(path)), path.read_bytes()),
    ".json": lambda path: _plain(json.loads(path.read_text())),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".jsonl": _lines,
    ".tar": _shard,
    ".npy": _array,
    ".npz": lambda path: np.load(path).files,
    ".sqlite": _library,
    ".faiss": _approximate,
    ".mp4": _clip,
}
