"""Building a cache of a frozen teacher's embeddings: part by part, in one or several processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from safetensors import safe_open
from torch import Tensor

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.batch import TeacherInput
from ccl_cli.data.clips.dataset import LoadedInputs, TeacherClips, clip_loader, split_rows
from ccl_cli.data.manifest import Manifest
from ccl_cli.errors import DataError, Interrupted, SystemSetupError
from ccl_cli.teachers import Teacher, embed
from ccl_cli.teachers.embedding_cache import EMBEDDING, HEADER, STATE, STATES, Cached, Header, Key, checksum
from ccl_cli.training.cache.keys import key_of, views_per_video
from ccl_cli.utils import json_text
from ccl_cli.utils.distributed import barrier, is_main, on_main, rank, world_size
from ccl_cli.utils.files import lock_file, write_text
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import stop_on_signal
from ccl_cli.utils.tensor_files import write_tensors
from ccl_cli.utils.text import printable

PART = 256  # videos in a file of an unfinished cache; a kill loses at most one such part
_UNREADABLE = STATES.index("unreadable")


def build_cache(
    name: str, teacher: Teacher, manifest: Manifest, recipe: Recipe, accelerator: Accelerator
) -> Cached:
    """Embed all training and validation videos, shared among the processes. Existing parts are kept.

    ``name`` is the teacher's in results. Embeddings are always computed in single precision.

    Raises:
        DataError: the teacher cannot be cached, or a part on disk is damaged.
        SystemSetupError: the files cannot be written.
        Interrupted: stopped by a signal; finished parts are kept.
    """
    key = on_main(partial(key_of, name, teacher, manifest, recipe.cache, recipe.clip))
    if key is None:
        raise DataError(
            f"{name} cannot be cached: its preprocessing does not declare what it looks at.",
            "Leave it live; it may depend on the student's crop, or need no network anyway.",
        )
    finished = key.folder / HEADER
    lock_path = key.folder.with_name(f".{key.folder.name}.lock")
    refusal = f"Another process is building '{key.folder.name}'."
    try:
        if not on_main(finished.is_file):
            lock = lock_file(lock_path, refusal, "Waiting for it.", wait=True) if is_main() else nullcontext()
            with lock:
                if not on_main(finished.is_file):
                    own = part_numbers(manifest)[rank() :: world_size()]
                    embed_parts(name, teacher, manifest, key, recipe, accelerator, own)
                    barrier()
                    on_main(lambda: _merge_parts(key, teacher, manifest))
        on_main(lambda: shutil.rmtree(key.building, ignore_errors=True))
    except OSError as error:
        raise SystemSetupError(
            f"The cache '{key.folder}' cannot be written: {error.strerror or error}.",
            "Free some disk space, or set CCL_HOME. Finished parts are kept.",
        ) from error
    return Cached.open(key.folder)


def embed_parts(
    name: str,
    teacher: Teacher,
    manifest: Manifest,
    key: Key,
    recipe: Recipe,
    accelerator: Accelerator,
    numbers: Sequence[int],
) -> None:
    """Embed the videos of these parts and write each part when it is complete. Existing parts are kept."""
    videos, views = manifest.cacheable, views_per_video(key, recipe.cache)
    size = max(1, recipe.eval.batch_size // views)
    batches = [
        rows
        for number in numbers
        if not has_part(key, number)
        for rows in split_rows(part_rows(number, len(videos)), size)
    ]
    loader = clip_loader(
        TeacherClips(videos, recipe.clip, {name: teacher.preprocess}, views=views),
        batches,
        workers=recipe.train.workers,
        pin_memory=accelerator.device.type == "cuda",
        advice="run the same command again to continue",
    )
    teacher.to(accelerator.device)
    # Processes have equal shares, so this one's progress times their number is that of all.
    total = world_size() * sum(len(part_rows(number, len(videos))) for number in numbers)
    part, dtype = None, torch.float16 if recipe.cache.precision == "fp16" else torch.float32
    with stop_on_signal() as stop, Reporter(f"cache {name}", total, unit="video") as reporter:
        reporter.advance(total - sum(map(len, batches)) * world_size())
        for batch in loader:
            part = part or _Part(int(batch.rows[0]) // PART, len(videos), (views, teacher.dim), dtype)
            part.add(name, batch, embed_views(teacher, batch.inputs[name], views, accelerator.device))
            reporter.advance(len(batch.rows) * world_size())
            if batch.rows[-1] == part.rows[-1]:
                part.save(key)
                part = None
            if stop.requested:
                raise Interrupted(
                    f"Stopped by {stop.name} while caching {key.teacher}; finished parts are in "
                    f"'{key.building}'.",
                    "Run the same command again to continue.",
                )


def embed_views(teacher: Teacher, inputs: TeacherInput, views: int, device: torch.device) -> Tensor:
    """Run a teacher on all views of some videos.

    Shapes: inputs: n * K views, those of a video in a row. returns: [n, K, D] on the CPU; zero for a video
    with an absent view.
    """
    present = inputs.present.view(-1, views).all(dim=1).repeat_interleave(views)
    embedding = embed(teacher, inputs.value.to(device, non_blocking=True), present.to(device)).value
    return embedding.cpu().view(len(present) // views, views, -1)


def part_numbers(manifest: Manifest) -> range:
    """Numbers of the parts of a data set's cache."""
    return range(-(-len(manifest.cacheable) // PART))


def part_rows(number: int, videos: int) -> range:
    """Rows of ``manifest.cacheable`` in a part, of so many videos in all."""
    return range(number * PART, min((number + 1) * PART, videos))


def has_part(key: Key, number: int) -> bool:
    """Whether a part exists or the cache is finished."""
    return _part_path(key, number).is_file() or (key.folder / HEADER).is_file()


class _Notes(BaseModel, strict=True):
    """Fields of :class:`Header` for the videos of one part."""

    unreadable: dict[Annotated[int, Field(strict=False)], str] = {}
    kind: str = ""
    inexact: int = 0
    frames: int = 0


class _Part:
    """Embeddings and states of the videos of one part, filled batch by batch."""

    def __init__(self, number: int, videos: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.number, self.rows, self.notes = number, part_rows(number, videos), _Notes()
        self.value = torch.zeros(len(self.rows), *shape, dtype=dtype)
        self.state = torch.full((len(self.rows),), _UNREADABLE, dtype=torch.uint8)

    def add(self, name: str, batch: LoadedInputs, embedding: Tensor) -> None:
        """Add embeddings ([n, K, D]) of a batch; non-finite ones count as unreadable."""
        finite = embedding.isfinite().flatten(1).all(dim=1)
        places, notes = batch.rows - self.rows[0], self.notes
        self.value[places] = torch.where(finite[:, None, None], embedding, 0.0).to(self.value.dtype)
        if not self.value[places].isfinite().all():
            raise DataError(
                f"Embeddings of {name} are too large for half precision.", "Set cache.precision to fp32."
            )
        notes.kind = notes.kind or batch.kinds.get(name, "")
        notes.inexact += batch.inexact[name]
        notes.frames = max(notes.frames, batch.frames[name])
        notes.unreadable |= {row: reasons[name] for row, reasons in batch.unreadable.items()}
        for row, place, good in zip(batch.rows.tolist(), places.tolist(), finite.tolist(), strict=True):
            self.state[place] = STATES.index(batch.states[row][name] if good else "unreadable")
            if not good:
                notes.unreadable[row] = "The teacher returns a non-finite embedding."

    def save(self, key: Key) -> None:
        tensors, notes = {"value": self.value, "state": self.state}, json.dumps(dict(self.notes))
        write_tensors(_part_path(key, self.number), tensors, {"notes": notes})


def _part_path(key: Key, number: int) -> Path:
    return key.building / f"part-{number:06}.safetensors"


def _read_part(path: Path) -> tuple[NDArray[np.floating], NDArray[np.uint8], _Notes]:
    """Embeddings [n, K, D], states [n] and notes of a part. A damaged part is removed."""
    try:
        with safe_open(path, "np") as file:
            notes = _Notes.model_validate(json_text.parse(file.metadata()["notes"]))
            return file.get_tensor("value"), file.get_tensor("state"), notes
    except (OSError, MemoryError) as error:  # not a sign of damage
        raise SystemSetupError(
            f"'{path}' cannot be read: {error}.", "Finished parts are kept: try again."
        ) from error
    except Exception as error:  # damaged bytes may cause any error
        path.unlink(missing_ok=True)
        raise DataError(
            f"'{path}' was damaged and has been removed: {error}.", "Run the same command again."
        ) from error


def _merge_parts(key: Key, teacher: Teacher, manifest: Manifest) -> None:
    """Merge all parts into the cache. Its folder appears by a rename, complete."""
    videos, folder = len(manifest.cacheable), key.building / "merged"
    folder.mkdir(exist_ok=True)
    paths = [_part_path(key, number) for number in part_numbers(manifest)]
    first, _, _ = _read_part(paths[0])
    shape = (videos, first.shape[1], teacher.dim)
    state, notes = np.zeros(videos, np.uint8), list[_Notes]()
    with _array_file(folder / EMBEDDING, first.dtype.str, shape) as file:
        for number, path in enumerate(paths):
            value, states, of_part = _read_part(path)
            file.write(value.tobytes())
            state[number * PART : number * PART + len(value)] = states
            notes.append(of_part)
    with _array_file(folder / STATE, "|u1", state.shape) as file:
        file.write(state.tobytes())
    embedding = np.load(folder / EMBEDDING, mmap_mode="r", allow_pickle=False)
    header = Header(
        key=key,
        videos=shape[0],
        count=shape[1],
        dim=shape[2],
        kind=next(filter(None, (each.kind for each in notes)), ""),
        sha256=checksum(embedding, state),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        inexact=sum(each.inexact for each in notes),
        frames=max(each.frames for each in notes),
        # A reason may contain a path that is not UTF-8.
        unreadable={row: printable(reason) for each in notes for row, reason in each.unreadable.items()},
    )
    write_text(folder / HEADER, header.model_dump_json(indent=1) + "\n")
    shutil.rmtree(key.folder, ignore_errors=True)  # incomplete, if `ccl cache prune` was killed
    folder.rename(key.folder)


@contextmanager
def _array_file(path: Path, kind: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Yield a .npy file after its header, to append the array's bytes.

    numpy's own writing does not report a full disk, and writing to a memory map would end the process.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        yield file
