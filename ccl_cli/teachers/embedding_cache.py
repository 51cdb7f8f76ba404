"""Embeddings of a frozen teacher on disk: a few views of each video, computed once, read by place.

A cache belongs to one teacher (its fingerprint), one set of files and one choice of views; the three decide
its folder's name, and its header repeats them, so that no other embeddings are ever taken for these.

A folder holds ``embedding.npy`` [V, K, D] float32, ``state.npy`` [V] (index into the header's states) and,
written last, ``cache.json``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from torch import Tensor

from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.sentences import invalid_value

STATES = ("present", "absent", "silent", "no track", "unreadable")
PRESENT = STATES.index("present")
HEADER, EMBEDDING, STATE = "cache.json", "embedding.npy", "state.npy"
_BUILDING = ".building"


@dataclass(frozen=True)
class Key:
    """What a cache belongs to.

    Attributes:
        teacher: ``modality:name``.
        fingerprint: The teacher's.
        data: Name of the data set, for people.
        files: Hash of the videos, see ``Manifest.files_hash``; of a teacher that sees labels, with them.
        views: "track", or for example "8 frames at 256 px" or "8 clips of 16 frames at 256 px".
    """

    teacher: str
    fingerprint: str
    data: str
    files: str
    views: str

    @property
    def folder(self) -> Path:
        """Where the cache lies, or would."""
        # The data set's name is for people: another name for the same files is the same cache.
        decides = json.dumps([self.teacher, self.fingerprint, self.files, self.views])
        digest = hashlib.sha256(decides.encode()).hexdigest()[:12]
        return root() / f"{_plain(self.teacher)}-{digest}"

    @property
    def building(self) -> Path:
        """Where parts lie until all are there."""
        return self.folder.with_name(self.folder.name + _BUILDING)

    def differs_from(self, wanted: Key) -> str:
        """In words, what makes this the cache of something else."""
        words = {"fingerprint": "other weights or settings", "files": "other files", "views": self.views}
        return " and ".join(
            text for name, text in words.items() if getattr(self, name) != getattr(wanted, name)
        )


class Header(BaseModel, frozen=True, strict=True):
    """What ``cache.json`` says.

    Attributes:
        key: What it belongs to.
        videos: V.
        count: K, views of each video.
        dim: D.
        kind: Under which name the states of its modality are counted.
        sha256: Of the two arrays' bytes.
        built: When, ISO 8601.
        inexact: Videos of which a live teacher may see something else than these views.
        frames: Of the longest video, where the teacher looks at single frames; else 0.
        unreadable: Reasons, by place.
        states: What the numbers in ``state.npy`` stand for.
    """

    format: Literal["ccl-embeddings-2"] = "ccl-embeddings-2"
    key: Key
    videos: int
    count: int
    dim: int
    kind: str
    sha256: str
    built: str
    inexact: int
    frames: int
    unreadable: dict[int, str] = {}
    states: tuple[str, ...] = STATES

    def differs_from_live(self, clip_frames: int) -> str:
        """Why a live teacher may see something else in clips of so many consecutive frames; "" where not."""
        if self.inexact:
            return f"of {self.inexact} of {self.videos} videos a live teacher may see or hear something else"
        if self.frames > clip_frames:
            return f"a live teacher sees frames of the clip, not all of up to {self.frames} of a video"
        return ""


class Cached:
    """An open cache; the embeddings stay on disk until they are asked for."""

    def __init__(
        self, folder: Path, header: Header, embedding: NDArray[np.float32], state: NDArray[np.uint8]
    ) -> None:
        self.folder, self.header, self._embedding, self._state = folder, header, embedding, state

    @classmethod
    def open(cls, folder: Path) -> Cached:
        """Open what is at ``folder``.

        Raises:
            DataError: absent, damaged or cut off.
            SystemSetupError: the disk refuses.
        """
        try:
            header = Header.model_validate_json((folder / HEADER).read_bytes())
            embedding = np.load(folder / EMBEDDING, mmap_mode="r", allow_pickle=False)
            state = np.load(folder / STATE, allow_pickle=False)
            if (embedding.shape, embedding.dtype) != ((header.videos, header.count, header.dim), np.float32):
                raise ValueError("another shape")
            if state.shape != (header.videos,) or (header.videos and state.max() >= len(STATES)):
                raise ValueError("unknown states")
        except FileNotFoundError as error:
            raise DataError(f"There is no cache at '{folder}'.", "Make it with `ccl cache build`.") from error
        except OSError as error:  # says nothing of what the files hold
            raise SystemSetupError(
                f"The cache '{folder}' cannot be read: {error.strerror or error}.", "Nothing was changed."
            ) from error
        except (ValueError, EOFError) as error:
            reason = invalid_value(error) if isinstance(error, ValidationError) else error
            raise DataError(
                f"The cache '{folder}' is damaged: {reason}.",
                f"Remove it with `ccl cache prune {folder.name}` and make it again with `ccl cache build`.",
            ) from error
        return cls(folder, header, embedding, state)

    def state(self, place: int) -> str:
        """What became of one video's modality."""
        return STATES[self._state[place]]

    def counts(self) -> dict[str, int]:
        """Videos by state."""
        counts = Counter(self._state.tolist())
        return {name: counts[number] for number, name in enumerate(STATES) if counts[number]}

    def rows(self, places: NDArray[np.int64], views: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """One view of each of some videos.

        Shapes:
            places: [B].
            views: [B], each below the number of views.
            returns: [B, D] float32, zero where there is none; [B] bool, whether there is one.
        """
        value = torch.from_numpy(np.array(self._embedding[places, views]))
        return value, torch.from_numpy(self._state[places] == PRESENT)

    @property
    def size(self) -> int:
        """Bytes of the embeddings."""
        return int(self._embedding.nbytes)

    def checksum(self) -> str:
        """SHA-256 of the arrays as they are on disk now; the header says what it was."""
        return checksum(self._embedding, self._state)


def checksum(embedding: NDArray[np.float32], state: NDArray[np.uint8]) -> str:
    """SHA-256 of both arrays, read in blocks."""
    digest = hashlib.sha256(state.tobytes())
    for begin in range(0, len(embedding), 1024):
        digest.update(np.ascontiguousarray(embedding[begin : begin + 1024]).tobytes())
    return digest.hexdigest()


def root() -> Path:
    """Folder of all caches."""
    return cache_dir() / "embeddings"


def caches() -> Iterator[Path]:
    """Folders of the caches on this machine that are complete, by name."""
    return (path.parent for path in sorted(root().glob(f"*/{HEADER}")) if not is_unfinished(path.parent))


def is_any_of(teacher: str) -> bool:
    """Whether there is a cache of a teacher (``modality:name``) at all, which is quick to tell."""
    return any(root().glob(f"{_plain(teacher)}-*/{HEADER}"))


def _plain(teacher: str) -> str:
    return teacher.replace(":", "-").replace("/", "_")


def unfinished() -> list[Path]:
    """Folders of builds that have not ended."""
    return sorted(path for path in root().glob(f"*{_BUILDING}") if path.is_dir())


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds parts of a cache."""
    return folder.name.endswith(_BUILDING)


def folder_bytes(folder: Path) -> int:
    """Size of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(folder: Path) -> None:
    """Delete a cache; the header goes first, so that none is ever half a cache."""
    (folder / HEADER).unlink(missing_ok=True)
    shutil.rmtree(folder)
