"""Embedding caches of frozen teachers on disk: a few views of each video, with random access.

A cache belongs to a teacher (by fingerprint), a set of files and a choice of views. These determine the
folder's name, and the header repeats them to prevent mix-ups.

A folder contains ``embedding.npy`` [V, K, D] in single or half precision, ``state.npy`` [V] (indices into the
header's states) and ``cache.json``, which is written last.
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
    """Identity of a cache.

    Attributes:
        teacher: ``modality:name``.
        fingerprint: Fingerprint of the teacher.
        data: Name of the data set, for display only.
        files: Hash of the videos, see ``Manifest.files_hash``; includes the labels for teachers that use
            them.
        views: "track", or for example "8 frames at 256 px" or "8 clips of 16 frames at 256 px".
    """

    teacher: str
    fingerprint: str
    data: str
    files: str
    views: str

    @property
    def folder(self) -> Path:
        """Folder of the cache, which need not exist. The same files with another name share the cache."""
        identity = json.dumps([self.teacher, self.fingerprint, self.files, self.views])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        return root() / f"{_plain(self.teacher)}-{digest}"

    @property
    def building(self) -> Path:
        """Folder of the parts of an unfinished build."""
        return self.folder.with_name(self.folder.name + _BUILDING)

    def differs_from(self, wanted: Key) -> str:
        """Describe the difference from another key in words."""
        words = {"fingerprint": "other weights or settings", "files": "other files", "views": self.views}
        return " and ".join(
            text for name, text in words.items() if getattr(self, name) != getattr(wanted, name)
        )


class Header(BaseModel, frozen=True, strict=True):
    """Contents of ``cache.json``.

    Attributes:
        videos: Number of videos, V.
        count: Views per video, K.
        dim: Embedding dimension, D.
        kind: Name of the modality in counts of states.
        sha256: Checksum of both arrays.
        inexact: Number of videos for which a live teacher may get other inputs than the cached views.
        frames: Number of frames of the longest video for teachers of single frames, else 0.
        unreadable: Reasons by index of the video.
        states: Names of the values in ``state.npy``.
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
        """Reason why live teachers may get other inputs for clips of this many consecutive frames, or ""."""
        if self.inexact:
            return f"a live teacher may get other inputs for {self.inexact} of {self.videos} videos"
        longest = (
            f"a live teacher gets only frames of the clip, and the longest video has {self.frames} frames"
        )
        return longest if self.frames > clip_frames else ""


class Cached:
    """An open, memory-mapped cache."""

    def __init__(
        self, folder: Path, header: Header, embedding: NDArray[np.floating], state: NDArray[np.uint8]
    ) -> None:
        self.folder, self.header, self._embedding, self._state = folder, header, embedding, state

    @classmethod
    def open(cls, folder: Path) -> Cached:
        """Open a cache folder.

        Raises:
            DataError: the cache is missing, damaged or truncated.
            SystemSetupError: the files cannot be read.
        """
        try:
            header = Header.model_validate_json((folder / HEADER).read_bytes())
            embedding = np.load(folder / EMBEDDING, mmap_mode="r", allow_pickle=False)
            state = np.load(folder / STATE, allow_pickle=False)
            shapes = (header.videos, header.count, header.dim), (header.videos,)
            if (embedding.shape, state.shape) != shapes or state.max(initial=0) >= len(STATES):
                raise ValueError("its arrays do not match its header")
        except FileNotFoundError as error:
            raise DataError(
                f"There is no cache at '{folder}'.", "Build it with `ccl cache build`."
            ) from error
        except OSError as error:  # not a sign of damage
            raise SystemSetupError(
                f"The cache '{folder}' cannot be read: {error.strerror or error}.",
                "Check the disk and the permissions.",
            ) from error
        except (ValueError, EOFError) as error:
            reason = invalid_value(error) if isinstance(error, ValidationError) else error
            raise DataError(
                f"The cache '{folder}' is damaged: {reason}.",
                f"Delete it with `ccl cache prune {folder.name}` and rebuild it with `ccl cache build`.",
            ) from error
        return cls(folder, header, embedding, state)

    def state(self, video: int) -> str:
        """State of a modality of the video with this index."""
        return STATES[self._state[video]]

    def counts(self) -> dict[str, int]:
        """Number of videos by state."""
        counts = Counter(self._state.tolist())
        return {name: counts[number] for number, name in enumerate(STATES) if counts[number]}

    def rows(self, videos: NDArray[np.int64], views: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Read one view of each of some videos.

        Shapes:
            videos: [B] indices of videos.
            views: [B] indices of views.
            returns: [B, D] float32, zero for absent rows; [B] bool, whether the row is present.
        """
        value = torch.from_numpy(np.array(self._embedding[videos, views], np.float32))
        return value, torch.from_numpy(self._state[videos] == PRESENT)

    @property
    def size(self) -> int:
        """Size of the embeddings in bytes."""
        return int(self._embedding.nbytes)

    def checksum(self) -> str:
        """Compute the SHA-256 of the arrays on disk, to compare with the header."""
        return checksum(self._embedding, self._state)


def checksum(embedding: NDArray[np.floating], state: NDArray[np.uint8]) -> str:
    """Compute the SHA-256 of both arrays, reading blocks."""
    digest = hashlib.sha256(state.tobytes())
    for begin in range(0, len(embedding), 1024):
        digest.update(np.ascontiguousarray(embedding[begin : begin + 1024]).tobytes())
    return digest.hexdigest()


def root() -> Path:
    """Return the folder of all caches."""
    return cache_dir() / "embeddings"


def caches() -> Iterator[Path]:
    """Return the folders of all complete caches, sorted by name."""
    return (path.parent for path in sorted(root().glob(f"*/{HEADER}")))


def is_any_of(teacher: str) -> bool:
    """Quickly check whether any cache of a teacher (``modality:name``) exists."""
    return any(root().glob(f"{_plain(teacher)}-*/{HEADER}"))


def _plain(teacher: str) -> str:
    return teacher.replace(":", "-").replace("/", "_")


def unfinished() -> list[Path]:
    """Return the folders of unfinished builds, which contain parts of a cache."""
    return sorted(path for path in root().glob(f"*{_BUILDING}") if path.is_dir())


def folder_bytes(folder: Path) -> int:
    """Return the total size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(folder: Path) -> None:
    """Delete a cache, starting with its header, so that it never looks complete."""
    (folder / HEADER).unlink(missing_ok=True)
    shutil.rmtree(folder)
