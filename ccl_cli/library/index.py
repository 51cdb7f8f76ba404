"""Build or update a library; only new and changed files are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ccl_cli.data.video_paths import VideoFiles, list_videos
from ccl_cli.deploy.predict import predict_files
from ccl_cli.errors import DataError, SystemSetupError, UsageError
from ccl_cli.evaluation.metrics import directions
from ccl_cli.evaluation.model import Model, fingerprint, load_student
from ccl_cli.evaluation.predictor import VideoPrediction
from ccl_cli.executors.part import WHOLE
from ccl_cli.library.approximate import FILE as FAISS_FILE
from ccl_cli.library.approximate import build, import_faiss
from ccl_cli.library.store import FILE, Library, Stamp, create, open_library, stamp_of
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.folder import locate_model
from ccl_cli.utils.distributed import from_main, is_main
from ccl_cli.utils.files import lock_file, remove_leftovers
from ccl_cli.utils.signals import stopping_here

OnUnreadable = Callable[[str, str], None]
Read = partial[Generator[VideoPrediction, None, None]]  # :func:`predict_files` of a model and videos


@dataclass
class Updated:
    """Summary of an update.

    Attributes:
        folder: Folder of the library.
        videos: Number of videos in the library.
        added: Number of new and changed videos that were read.
        removed: Number of deleted and forgotten videos.
        unchanged: Number of videos in the same folders that were not read again.
        unreadable: Number of files and folders that could not be read.
    """

    folder: str
    videos: int = 0
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    unreadable: int = 0


def index(
    paths: Sequence[str | Path],
    folder: str | Path,
    *,
    model: str | Path | None = None,
    forget_paths: Sequence[Path] = (),
    rebuild: bool = False,
    approximate: bool = False,
    on_unreadable: OnUnreadable = lambda path, reason: None,
    **settings: Any,
) -> Updated:
    """Update a library with files and folders; videos from other paths stay in it.

    Every video is stored as soon as it has been read, so a kill loses only the current batch. All processes
    read videos, and the first one writes. What an executor has read is stored in one transaction.

    Args:
        paths: Files and folders. Default: the paths that the library was built from.
        folder: Folder of the library; created if necessary.
        model: Run folder or model file. Default: the library's, or the newest run's for a new library.
        forget_paths: Files and folders to remove from the library.
        rebuild: Start with an empty library.
        approximate: Also build an approximate index.
        on_unreadable: Called with each unreadable path and the reason.
        settings: ``batch_size``, ``workers``, ``executor``; see :func:`ccl_cli.deploy.predict.predict_files`.

    Raises:
        UsageError: nothing to index, not a library, another model, or another process has the lock.
        DataError: a path does not exist, or the library is damaged.
        CclError: an executor failed on some blocks, or other parts have blocks left (PartDone).
        Interrupted: stopped by a signal.
    """
    folder, model = Path(folder), Path(model) if model else None
    _check_folder(folder)
    if approximate:
        import_faiss()
    files, roots = _list_files(folder, [_absolute(path) for path in paths], bool(forget_paths))
    # Without mixing videos in batches, vectors do not depend on where an earlier call was interrupted.
    read = partial(predict_files, title="index", mixed=False, **settings)
    set_up("fp32")  # connect the processes before only one of them continues
    if not is_main():
        return _read_along(read)
    # Load the model before creating the folder, so that an error leaves no empty library.
    student = load_student(model) if rebuild or not (folder / FILE).is_file() else None
    divided = getattr(settings.get("executor"), "part", WHOLE) != WHOLE
    if divided:
        _read_part(folder, model, student, read, files, roots)
        student = None  # the library exists now
    with _writing(folder, model, student, wait=divided) as (library, path):
        update = _Update(library, folder, on_unreadable)
        update.forget([_absolute(each) for each in forget_paths])
        update.add(update.compare(files, roots), path, student, read)
        update.result.videos = len(library)
        if approximate:
            build(library, folder)
    return from_main(update.result)  # type: ignore[no-any-return]


def own_model(library: Library, folder: Path, model: Path | None) -> Path:
    """Return the model file of a library, or the given one if it is the same model.

    Raises:
        UsageError: the given model differs from the library's.
        DataError: the library's model was deleted.
    """
    path = Path(library.about.model)
    if model is not None:
        path = locate_model(model)[1].absolute()
    elif not path.is_file():
        raise DataError(
            f"The model of '{folder}' is missing: '{path}'.",
            "Put its new path before the videos, or rebuild the library with ccl index --rebuild.",
        )
    if fingerprint(path) != library.about.fingerprint:
        raise UsageError(
            f"The library '{folder}' was built with another model than '{path}', and their features cannot "
            "be compared.",
            "Put the library's model before the videos, or rebuild the library with ccl index --rebuild.",
        )
    return path


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file.", "A library is a folder: choose another path.")
    files = [] if not folder.is_dir() or (folder / FILE).exists() else folder.iterdir()
    if any(path.name != ".lock" and path.suffix != ".tmp" for path in files):
        raise UsageError(f"'{folder}' is not a library, and not empty.", "Choose a new folder.")


def _list_files(folder: Path, roots: list[str], forgetting: bool) -> tuple[VideoFiles, list[str]]:
    """Return the files to index, and the paths that contain them."""
    if not roots and (folder / FILE).is_file():
        with open_library(folder) as library:
            roots = [] if forgetting else library.about.roots
    elif not roots:
        raise UsageError("There is nothing to index.", "Add video files or folders.")
    for root in roots:
        if not os.path.lexists(root):
            raise DataError(
                f"There is no '{root}'.",
                "Check that its disk is mounted. --forget removes the videos of a path from a library.",
            )
    return list_videos(roots), roots


def _read_along(read: Read) -> Updated:
    """Run a process other than the first: read its share of the files that the first one lists."""
    path, videos = from_main(None)
    if videos:
        for _ in read(load_student(path), videos):
            pass
    return from_main(None)  # type: ignore[no-any-return]


def _read_part(
    folder: Path,
    model: Path | None,
    student: Model | None,
    read: Read,
    files: VideoFiles,
    roots: Sequence[str],
) -> None:
    """Read this command's part of the new files, without a lock, so that all parts can do so at once.

    Raises:
        PartDone: other parts are not done yet.
    """
    with _writing(folder, model, student, wait=True) as (library, path):
        new = _Update(library, folder, lambda path, reason: None).compare(files, roots)
    if new.videos:
        next(iter(read(student or load_student(path), new.videos)))


@contextmanager
def _writing(
    folder: Path, model: Path | None, student: Model | None, *, wait: bool
) -> Iterator[tuple[Library, Path]]:
    """Lock and open a library, and find its model; with a student, create the library or empty it."""
    lock = folder / ".lock", f"Another process is updating '{folder}'.", "Wait for it to finish."
    stopped = f". Finished videos are in '{folder}'.", "Run the same command to continue."
    try:
        with lock_file(*lock, wait=wait), stopping_here(*stopped):
            remove_leftovers(folder)
            if student:
                (folder / FAISS_FILE).unlink(missing_ok=True)
                dim = student.artefact.student.feature_dim
                create(folder, model=student.path, fingerprint=student.fingerprint, dim=dim)
            with open_library(folder, write=True) as library:
                yield library, student.path if student else own_model(library, folder, model)
    except OSError as error:
        raise SystemSetupError(
            f"The library '{folder}' cannot be written: {error.strerror or error}.",
            "Finished videos are kept. Free some disk space, and run the same command again.",
        ) from error


class _Update:
    """One update of an open library."""

    def __init__(self, library: Library, folder: Path, on_unreadable: OnUnreadable) -> None:
        self.library, self.result = library, Updated(str(folder))
        self.stamps: dict[str, Stamp | None] = {}
        self._on_unreadable = on_unreadable

    def forget(self, roots: Sequence[str]) -> None:
        """Remove files and folders from the library, whether they still exist or not."""
        forgotten = [path for path in self.library.known() if _within(path, roots)]
        if roots and not forgotten:
            raise UsageError(
                f"The library contains no videos of '{roots[0]}'.", "Give the path as it was indexed."
            )
        self.library.drop(forgotten)
        self.result.removed += len(forgotten)
        self.library.note(roots=[root for root in self.library.about.roots if not _within(root, roots)])

    def compare(self, files: VideoFiles, roots: Sequence[str]) -> VideoFiles:
        """Remove changed and deleted videos below some paths; return the new and changed files."""
        # Taken before reading, so that a file that changes meanwhile is read again by the next update.
        self.stamps = {name: stamp_of(name) for name in files.names}
        known = self.library.known()
        below = [path for path in known if _within(path, roots) and not _within(path, files.closed)]
        changed = {path for path in below if known[path] != self.stamps.get(path)}
        self.library.drop(changed)
        self.result.removed += sum(path not in self.stamps for path in changed)
        self.result.unchanged = len(below) - len(changed)
        for path, reason in files.closed.items():
            self._skip(path, reason)
        self.library.note(roots=sorted({*self.library.about.roots, *roots}))
        present = known.keys() - changed
        return VideoFiles(tuple(video for video in files.videos if str(video.path) not in present))

    def add(self, files: VideoFiles, path: Path, student: Model | None, read: Read) -> None:
        """Read files in all processes, and store each in the library as soon as it has been read.

        What an executor has read is stored at once: if only a part of it were stored, the other files would
        form other blocks at the next call, and all blocks would be read again.
        """
        from_main((path, files.videos))
        if not files.videos:  # no model is needed
            return
        names = files.names
        at_once = self.library.transaction() if read.keywords.get("executor") else nullcontext()
        with closing(read(student or load_student(path), files.videos)) as predictions, at_once:
            for prediction in predictions:
                name = names[prediction.row]
                stamp = self.stamps[name]
                if prediction.fault is not None or stamp is None:
                    self._skip(name, prediction.fault or "it does not exist")
                    continue
                unit, _ = directions(prediction.feature[None])
                self.library.put(name, stamp, unit[0].numpy())
                self.result.added += 1

    def _skip(self, path: str, reason: str) -> None:
        self.result.unreadable += 1
        self._on_unreadable(path, reason)


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (links stay as they are)


def _within(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root.rstrip(os.sep)}{os.sep}") for root in roots)
