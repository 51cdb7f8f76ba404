"""Caches of frozen teachers' embeddings: built part by part, over processes, and read in training."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ccl_cli.config.recipe import Cache, Clip, Recipe
from ccl_cli.data.clips.batch import TeacherInput
from ccl_cli.data.clips.dataset import TeacherBatch, TeacherClips, clip_loader, split_rows
from ccl_cli.data.manifest import Manifest, Videos
from ccl_cli.errors import CclError, DataError, Interrupted, SystemSetupError
from ccl_cli.teachers import Embedding, Teacher, embed
from ccl_cli.teachers.embedding_cache import (
    EMBEDDING,
    HEADER,
    STATE,
    STATES,
    Cached,
    Header,
    Key,
    caches,
    checksum,
    is_any_of,
)
from ccl_cli.teachers.standardize import Moments
from ccl_cli.training.build import Parts
from ccl_cli.utils import json_text
from ccl_cli.utils.distributed import barrier, is_main, on_main, rank, world_size
from ccl_cli.utils.files import lock_file, remove_leftovers, write_text
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import StopRequest, stop_on_signal
from ccl_cli.utils.tensor_files import write_tensors
from ccl_cli.utils.text import printable

PART = 256  # videos that are kept together: what a kill can cost
_CHUNK = 4096  # embeddings that are in memory at once
WORK = "work"  # beside the parts, what those who make them elsewhere leave
_UNREADABLE = STATES.index("unreadable")
EmbedElsewhere = Callable[[Key, Sequence[int]], None]
_log = logging.getLogger("ccl")


class _Notes(BaseModel, strict=True):
    """What a part tells of its videos besides their embeddings, as :class:`Header` has it."""

    unreadable: dict[Annotated[int, Field(strict=False)], str]
    kind: str
    inexact: int
    frames: int


class CachedRows:
    """A cache as training reads it: by rows of the training split, one view drawn per video and epoch.

    Args:
        cached: The embeddings.
        manifest: The data set, whatever is held out of it.
        videos: The training split of this manifest, in order.
        seed: Of the draws.
    """

    def __init__(self, cached: Cached, manifest: Manifest, videos: Videos, seed: int) -> None:
        self.cached, self.seed = cached, seed
        self._places = videos.places_in(manifest.learnt_from)
        self._views_of_epoch = lru_cache(maxsize=1)(self._draw_views)

    def embedding(self, rows: Tensor, epoch: int, device: torch.device) -> Embedding:
        """Embeddings of some rows ([B] int64) of the training split."""
        places = self._places[rows.cpu().numpy()]
        value, present = self.cached.rows(places, self._views_of_epoch(epoch)[rows.cpu().numpy()])
        return Embedding(value.to(device, non_blocking=True), present.to(device, non_blocking=True))

    def moments(self) -> Moments:
        """Of all views of the training split's videos that have finite embeddings, in one pass."""
        moments = Moments(self.cached.header.dim)
        for begin in range(0, len(self._places), _CHUNK):
            places = self._places[begin : begin + _CHUNK]
            for view in range(self.cached.header.count):
                value, present = self.cached.rows(places, np.full_like(places, view))
                moments.add(value[present & value.isfinite().all(dim=1)])
        return moments

    def state(self, row: int) -> str:
        """What became of a video's modality."""
        return self.cached.state(self._places[row])

    def _draw_views(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, epoch, 3])
        return rng.integers(self.cached.header.count, size=len(self._places))


def key_of(name: str, teacher: Teacher, manifest: Manifest, cache: Cache, clip: Clip) -> Key | None:
    """Which cache would serve a teacher; None: none can, it depends on the student's view or on the draw."""
    size = f"at {clip.short_side} px"
    texts = {
        "track": "track",
        "frame": f"{cache.views} frames {size}",
        "clip": f"{cache.views} clips of {clip.frames} frames{clip.spacing} {size}",
    }
    text = texts.get(getattr(teacher.preprocess, "views", None) or "")
    if text is None:
        return None
    files = manifest.labels_hash if teacher.sees_label else manifest.files_hash
    return Key(name.partition("#")[0], teacher.fingerprint, manifest.name, files, text)


def wanted_key(name: str, teacher: Teacher, manifest: Manifest, recipe: Recipe) -> Key | None:
    """Which cache a run would read or build; None: none. Files are read only where there may be one."""
    use = recipe.cache.use
    if use == "off" or (use == "auto" and not is_any_of(name.partition("#")[0])):
        return None
    return key_of(name, teacher, manifest, recipe.cache, recipe.clip)


def existing(key: Key, recipe: Recipe) -> Cached | None:
    """A cache that is there and that the recipe reads; says why it reads none, where there is one.

    Raises:
        DataError: it is damaged.
    """
    if not on_main((key.folder / HEADER).is_file):
        _warn_if_stale(key)
        return None
    cached = Cached.open(key.folder)
    return cached if recipe.cache.use == "build" or is_exact(cached, recipe.clip) else None


def is_exact(cached: Cached, clip: Clip) -> bool:
    """Whether a live teacher would see nothing else than the cache holds; says why not."""
    reason = cached.header.differs_from_live(clip.frames if clip.consecutive else 1)
    if reason:
        _log.warning(
            "The cache '%s' is not exact: %s. Train with `--set cache.use=build` to read it all the same.",
            cached.folder.name,
            reason,
        )
    return not reason


def open_caches(
    recipe: Recipe, parts: Parts, accelerator: Accelerator, *, build: bool = True
) -> dict[str, Cached]:
    """The caches that training will read instead of running a teacher.

    Nothing is read where a method wants the teachers' inner stages, which no cache holds.

    Args:
        recipe: For ``cache`` and ``clip``.
        parts: With the teachers.
        accelerator: Where to compute what is built.
        build: Whether to build first what the recipe says.

    Raises:
        DataError: one is damaged.
        Interrupted: stopped by a signal while building.
    """
    by_teacher: dict[str, Cached] = {}
    manifest = parts.manifest
    for name, teacher in () if parts.uses_stages else parts.teachers.items():
        key = on_main(partial(wanted_key, name, teacher, manifest, recipe))
        if key is None:
            continue
        if build and recipe.cache.use == "build":
            by_teacher[name] = build_cache(name, teacher, manifest, recipe, accelerator)
        elif cached := existing(key, recipe):
            by_teacher[name] = cached
    return by_teacher


def build_cache(
    name: str,
    teacher: Teacher,
    manifest: Manifest,
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    embed_elsewhere: EmbedElsewhere | None = None,
) -> Cached:
    """Embed every video that one may learn from, shared among the processes; what is there is kept.

    Args:
        name: The teacher's, as results show it.
        teacher: Frozen.
        manifest: Its rows of the train and val splits are embedded.
        recipe: For ``cache``, ``clip``, ``eval.batch_size`` and ``train.workers``.
        accelerator: Where to compute; always in single precision.
        embed_elsewhere: Makes the numbered parts that are missing instead.

    Raises:
        DataError: it cannot be cached, or a part on disk is damaged.
        SystemSetupError: the disk refuses.
        Interrupted: stopped by a signal; what is done is kept.
    """
    key = on_main(partial(key_of, name, teacher, manifest, recipe.cache, recipe.clip))
    if key is None:
        raise DataError(
            f"{name} cannot be cached: its preprocessing does not declare what it looks at.",
            "Leave it live; it may depend on the student's crop, or need no network anyway.",
        )
    if on_main(lambda: _is_complete(key)):
        return Cached.open(key.folder)
    says = f"Another process is building '{key.folder.name}'."
    try:
        lock = lock_file(_lock_path(key), says, "Waiting for it.", wait=True) if is_main() else nullcontext()
        with lock:
            on_main(lambda: _remove_parts(key))
            if not on_main((key.folder / HEADER).is_file):
                if embed_elsewhere is None:
                    embed_parts(name, teacher, manifest, key, recipe, accelerator, _own_parts(manifest))
                    barrier()
                else:
                    embed_elsewhere(key, part_numbers(manifest))
                on_main(lambda: _merge_parts(key, teacher, manifest))
    except OSError as error:
        raise SystemSetupError(
            f"The cache '{key.folder}' cannot be written: {error.strerror or error}.",
            "Make room, or move it with CCL_HOME; what is done is kept.",
        ) from error
    return Cached.open(key.folder)


def _is_complete(key: Key) -> bool:
    return (key.folder / HEADER).is_file() and not any(_parts(key.folder))


def _remove_parts(key: Key) -> None:
    """Remove parts beside the cache that was merged of them, which a process that was killed has left."""
    for path in _parts(key.folder):
        path.unlink()


def _lock_path(key: Key) -> Path:
    return key.folder.with_name(f".{key.folder.name}.lock")


class _Part:
    """Embeddings of consecutive videos, filled batch by batch."""

    def __init__(self, number: int, videos: int, shape: tuple[int, int]) -> None:
        self.number = number
        self.first = number * PART
        self.rows = min(PART, videos - self.first)
        self.value = torch.zeros(self.rows, *shape)
        self.state = torch.full((self.rows,), _UNREADABLE, dtype=torch.uint8)
        self.unreadable: dict[int, str] = {}
        self.kind, self.inexact, self.frames = "", 0, 0

    def add(self, name: str, batch: TeacherBatch, embedding: Tensor) -> None:
        finite = embedding.isfinite().flatten(1).all(dim=1)
        at = batch.rows - self.first
        self.value[at] = torch.where(finite[:, None, None], embedding, 0.0)
        self.kind = self.kind or batch.kinds.get(name, "")
        self.inexact += batch.inexact[name]
        self.frames = max(self.frames, batch.frames[name])
        self.unreadable |= {row: reasons[name] for row, reasons in batch.unreadable.items()}
        for row, good in zip(batch.rows.tolist(), finite.tolist(), strict=True):
            state = batch.states[row][name] if good else "unreadable"
            self.state[row - self.first] = STATES.index(state)
            if not good:
                self.unreadable[row] = "The teacher makes numbers of it that are not finite."

    def save(self, folder: Path) -> None:
        notes = json.dumps({name: getattr(self, name) for name in _Notes.model_fields})
        tensors = {"value": self.value, "state": self.state}
        write_tensors(_part_path(folder, self.number), tensors, {"notes": notes})


def part_numbers(manifest: Manifest) -> range:
    """The parts of a data set's cache."""
    return range(-(-len(manifest.learnt_from) // PART))


def _own_parts(manifest: Manifest) -> range:
    return part_numbers(manifest)[rank() :: world_size()]


def embed_parts(
    name: str,
    teacher: Teacher,
    manifest: Manifest,
    key: Key,
    recipe: Recipe,
    accelerator: Accelerator,
    numbers: Sequence[int],
) -> None:
    """Make those of some parts that are not there, one after the other."""
    videos, views = manifest.learnt_from, _views_of(key, recipe.cache)
    missing = [number for number in numbers if not has_part(key, number)]
    parts = [_Part(number, len(videos), (views, teacher.dim)) for number in missing]
    total = world_size() * sum(min(PART, len(videos) - number * PART) for number in numbers)
    size = max(1, recipe.eval.batch_size // views)
    batches = [rows for part in parts for rows in split_rows(range(part.first, part.first + part.rows), size)]
    loader = clip_loader(
        TeacherClips(videos, recipe.clip, {name: teacher.preprocess}, views=views),
        batches,
        workers=recipe.train.workers,
        pin_memory=accelerator.device.type == "cuda",
        advice="go on with the same command",
    )
    teacher.to(accelerator.device)
    pending = iter(parts)
    part = next(pending, None)
    with stop_on_signal() as stop, Reporter(f"cache {name}", total, unit="video") as reporter:
        reporter.advance(total - sum(map(len, batches)) * world_size())
        for batch in loader:
            assert part
            part.add(name, batch, _embed_views(teacher, batch.inputs[name], views, accelerator.device))
            reporter.advance(len(batch.rows) * world_size())
            if batch.rows[-1] == part.first + part.rows - 1:
                part.save(key.building)
                part = next(pending, None)
            _stop_if_requested(stop, key)


def _embed_views(teacher: Teacher, inputs: TeacherInput, views: int, device: torch.device) -> Tensor:
    """[n, K, D]; zero where one of the views of a video is absent."""
    present = inputs.present.view(-1, views).all(dim=1).repeat_interleave(views)
    embedding = embed(teacher, inputs.value.to(device, non_blocking=True), present.to(device)).value
    return embedding.cpu().view(len(present) // views, views, -1)


def _views_of(key: Key, cache: Cache) -> int:
    return 1 if key.views == "track" else cache.views


def _stop_if_requested(stop: StopRequest, key: Key) -> None:
    if stop.requested:
        raise Interrupted(
            f"Stopped by {stop.name} while caching {key.teacher}; what is done is in '{key.building}'.",
            "Go on with the same command.",
        )


def _merge_parts(key: Key, teacher: Teacher, manifest: Manifest) -> None:
    """All parts as one cache, which is there at once or not at all."""
    folder, videos = key.building, len(manifest.learnt_from)
    paths = [_part_path(folder, number) for number in part_numbers(manifest)]
    shape = (videos, _read_part(paths[0])[0].shape[1], teacher.dim)
    state, notes = np.zeros(videos, np.uint8), list[_Notes]()
    with _array_file(folder / EMBEDDING, "<f4", shape) as file:
        for number, path in enumerate(paths):
            value, states, of_part = _read_part(path)
            file.write(value.tobytes())
            state[number * PART : number * PART + len(value)] = states
            notes.append(of_part)
    with _array_file(folder / STATE, "|u1", state.shape) as file:
        file.write(state.tobytes())
    embedding = np.load(folder / EMBEDDING, mmap_mode="r", allow_pickle=False)
    built, sums = datetime.now(UTC).isoformat(timespec="seconds"), checksum(embedding, state)
    header = Header(
        key=key,
        videos=shape[0],
        count=shape[1],
        dim=shape[2],
        kind=next(filter(None, (each.kind for each in notes)), ""),
        sha256=sums,
        built=built,
        inexact=sum(each.inexact for each in notes),
        frames=max(each.frames for each in notes),
        # A path that is no UTF-8 may be in a reason.
        unreadable={row: printable(reason) for each in notes for row, reason in each.unreadable.items()},
    )
    write_text(folder / HEADER, header.model_dump_json(indent=1) + "\n")
    if key.folder.exists():  # what somebody had begun to remove
        shutil.rmtree(key.folder)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    remove_leftovers(folder)
    folder.rename(key.folder)
    _remove_parts(key)


@contextmanager
def _array_file(path: Path, kind: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """A .npy file whose bytes are written one after the other.

    Where the disk is full, numpy's own writing does not say so, and a memory map would end the process.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        yield file


def has_part(key: Key, number: int) -> bool:
    """Whether a part is there, or is in the finished cache."""
    return _part_path(key.building, number).is_file() or (key.folder / HEADER).is_file()


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.safetensors"


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.safetensors"))


def _read_part(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8], _Notes]:
    """Values and states of some videos, and what else the part tells of them."""
    try:
        path.open("rb").close()  # what safe_open says of a file that cannot be opened tells nothing
        with safe_open(path, "np") as file:
            notes = _Notes.model_validate(json_text.parse(file.metadata()["notes"]))
            return file.get_tensor("value"), file.get_tensor("state"), notes
    except OSError as error:  # says nothing of what the file holds
        raise SystemSetupError(
            f"'{path}' cannot be read: {error.strerror or error}.", "What is done is kept: try again."
        ) from error
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"'{path}' was damaged and has been removed.", "Run the same command again."
        ) from error


def _warn_if_stale(key: Key) -> None:
    """Say so when there is a cache of this teacher and data set that does not serve."""
    for folder in caches():
        try:
            other = Cached.open(folder).header.key
        except CclError:  # `ccl cache verify` tells
            continue
        if (other.teacher, other.data) != (key.teacher, key.data):
            continue
        changed = [
            name for name in ("fingerprint", "files", "views") if getattr(other, name) != getattr(key, name)
        ]
        words = {"fingerprint": "weights or settings of the teacher", "files": "files", "views": "views"}
        _log.warning(
            "The cache '%s' is not used: it is of other %s. `ccl cache build` makes one that fits.",
            folder.name,
            " and ".join(words[name] for name in changed),
        )


def check_cache(
    cached: Cached, teacher: Teacher, manifest: Manifest, recipe: Recipe, samples: int = 16
) -> list[str]:
    """What is wrong with a cache: its bytes, and some videos embedded anew; nothing if all is well.

    Args:
        cached: Of this teacher and these files.
        teacher: Frozen.
        manifest: The data set.
        recipe: As for :func:`build_cache`.
        samples: How many videos to embed again, evenly spaced.
    """
    header, videos = cached.header, manifest.learnt_from
    faults = [] if cached.checksum() == header.sha256 else ["its bytes are not those that were written"]
    rows = sorted({len(videos) * number // samples for number in range(samples)})
    name, views = header.key.teacher, _views_of(header.key, recipe.cache)
    dataset = TeacherClips(videos, recipe.clip, {name: teacher.preprocess}, views=views)
    for batch in clip_loader(dataset, [[row] for row in rows], workers=0, pin_memory=False):
        row = int(batch.rows)
        embedding = _embed_views(teacher, batch.inputs[name], views, torch.device("cpu"))[0]
        expected, _ = cached.rows(np.full(views, row), np.arange(views))
        state = batch.states[row][name]
        if state != cached.state(row):
            faults.append(f"'{videos[row].id}' is {state} now, it was {cached.state(row)}")
        elif not torch.allclose(embedding, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            faults.append(f"'{videos[row].id}' has another embedding now")
    return faults
