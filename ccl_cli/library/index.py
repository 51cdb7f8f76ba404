"""Make a library, or bring it up to date: only files that are new or have changed are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ccl_cli.data.manifest import Video
from ccl_cli.data.video_paths import Raw, list_videos
from ccl_cli.deploy.predict import predict_files
from ccl_cli.errors import DataError, SystemSetupError, UsageError
from ccl_cli.evaluation.metrics import directions
from ccl_cli.evaluation.model import Model, fingerprint, load_student
from ccl_cli.evaluation.predictor import VideoPrediction
from ccl_cli.library.approximate import build, check_installed, remove_index
from ccl_cli.library.store import FILE, Library, Stamp, create, open_library, stamp_of
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.folder import locate_model
from ccl_cli.utils.distributed import from_main, is_main
from ccl_cli.utils.files import hold, remove_leftovers
from ccl_cli.utils.signals import stopping_here

OnUnreadable = Callable[[str, str], None]


@dataclass
class Updated:
    """What an update has done.

    Attributes:
        folder: The library's.
        videos: How many it holds now.
        added: New or changed ones that were read.
        removed: Those that are gone, or were forgotten.
        unchanged: Those below the same folders that were not read again.
        unreadable: How many files and folders could not be read.
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
    batch_size: int | None = None,
    workers: int | None = None,
    on_unreadable: OnUnreadable = lambda path, reason: None,
) -> Updated:
    """Bring a library up to date with files and folders; what it holds from elsewhere stays.

    Every video is put as soon as it has been read, so that a kill costs those at hand. Of several processes
    all read, and the first one writes.

    Args:
        paths: Files and folders; none: those that the library was made from.
        folder: The library's; made where there is none.
        model: A run folder or model file; None: the library's own, for a new one the newest run's.
        forget_paths: Files and folders to take out.
        rebuild: Begin with an empty library.
        approximate: Make an index for approximate search too.
        batch_size: Windows per forward pass; default the recipe's.
        workers: Decoding processes; default as for :func:`ccl_cli.deploy.predict.predict_files`.
        on_unreadable: Is called with each path that cannot be read, and the reason.

    Raises:
        UsageError: nothing to index, a folder that holds something else, another model, or another process.
        DataError: a path that is not there, or a damaged library.
        Interrupted: a signal stopped it.
    """
    folder, model = Path(folder), Path(model) if model else None
    _check_folder(folder)
    if approximate:
        check_installed()
    files, roots = _list_files(folder, [Path(path) for path in paths], bool(forget_paths))
    set_up("fp32")  # the processes meet before one of them is alone
    if not is_main():
        return _read_along(batch_size, workers)
    lock = folder / ".lock", f"Another process brings '{folder}' up to date.", "Wait for it to end."
    stopped = f". What was read is in '{folder}'.", "The same command goes on."
    # Opened before the folder is made: without a model there is no library.
    creating = rebuild or not (folder / FILE).is_file()
    student = load_student(model) if creating else None
    try:
        with hold(*lock), stopping_here(*stopped):
            remove_leftovers(folder)
            if student is not None:
                _create(folder, student)
            path = student.path if student else own_model(folder, model)
            with open_library(folder, write=True) as library:
                update = _Update(library, folder, on_unreadable)
                update.forget(forget_paths)
                new = update.compare(files, roots)
                from_main((path, new.videos))
                if new.videos:  # often nothing has changed, and no model is needed
                    update.add(new, student or load_student(path), batch_size, workers)
                update.result.videos = len(library)
                if approximate:
                    build(library, folder)
    except OSError as error:
        raise SystemSetupError(
            f"The library '{folder}' cannot be written: {error.strerror or error}.",
            "What was read is kept: make room, and give the same command again.",
        ) from error
    return from_main(update.result)  # type: ignore[no-any-return]


def _read_along(batch_size: int | None, workers: int | None) -> Updated:
    """What a process beside the first one does: read its share of what the first one says."""
    path, videos = from_main(None)
    if videos:
        for _ in _read(load_student(path), videos, batch_size, workers):
            pass
    return from_main(None)  # type: ignore[no-any-return]


def _read(
    model: Model, videos: Sequence[Video], batch_size: int | None, workers: int | None
) -> Generator[VideoPrediction, None, None]:
    # Not mixed: else the vectors would depend on where an earlier call was interrupted.
    return predict_files(model, videos, title="index", batch_size=batch_size, workers=workers, mixed=False)


def _create(folder: Path, student: Model) -> None:
    remove_index(folder)
    create(
        folder,
        model=student.path.absolute(),
        fingerprint=student.fingerprint,
        dim=student.artefact.student.feature_dim,
    )


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file.", "A library is a folder: name another one.")
    if not folder.is_dir() or (folder / FILE).exists():
        return
    if any(path.name != ".lock" and path.suffix != ".tmp" for path in folder.iterdir()):
        raise UsageError(f"'{folder}' is not a library, and not empty.", "Name a new folder.")


def _list_files(folder: Path, paths: Sequence[Path], forgetting: bool) -> tuple[Raw, list[str]]:
    """The files that the library should hold, and the paths that they lie below."""
    roots = [_absolute(path) for path in paths]
    if not roots and (folder / FILE).is_file():
        with open_library(folder) as library:
            roots = library.roots
            if forgetting or not roots:
                return Raw(()), []
    if not roots:
        raise UsageError("Nothing to index.", "Name files or folders of videos.")
    for root in roots:
        if not os.path.lexists(root):
            raise DataError(
                f"There is no '{root}'.",
                "Is its disk there? --forget takes out of a library what it holds of a path.",
            )
    return list_videos([Path(root) for root in roots]), roots


def own_model(folder: Path, model: Path | None) -> Path:
    """The file of a library's model: the one that is named, or the one that made it.

    Raises:
        UsageError: it is another model.
        DataError: there is no library, or its model is gone.
    """
    with open_library(folder) as library:
        path, expected = library.model, library.fingerprint
    if model is not None:
        path = locate_model(model)[1].absolute()
    elif not path.is_file():
        raise DataError(
            f"The model that made '{folder}' is gone: '{path}'.",
            "Name where it is now before the videos, or make the library anew with ccl index --rebuild.",
        )
    if fingerprint(path) != expected:
        raise UsageError(
            f"The library '{folder}' was made by another model than '{path}' holds: their features cannot be "
            "compared.",
            "Name its own before the videos, or make the library anew with ccl index --rebuild.",
        )
    return path


class _Update:
    """One update of an open library."""

    def __init__(self, library: Library, folder: Path, on_unreadable: OnUnreadable) -> None:
        self.library, self.result = library, Updated(str(folder))
        self.stamps: dict[str, Stamp | None] = {}
        self._on_unreadable = on_unreadable

    def forget(self, paths: Sequence[Path]) -> None:
        """Take files and folders out, whether they are still there or not."""
        roots = [_absolute(path) for path in paths]
        forgotten = [path for path in self.library.known() if _within(path, roots)]
        if paths and not forgotten:
            raise UsageError(f"The library holds nothing of '{paths[0]}'.", "Name it as it was indexed.")
        self.library.drop(forgotten)
        self.result.removed += len(forgotten)
        self.library.note("roots", [root for root in self.library.roots if not _within(root, roots)])

    def compare(self, files: Raw, roots: Sequence[str]) -> Raw:
        """Drop what has changed or is gone below some paths.

        Returns:
            The files to read: new and changed ones.
        """
        # Before anything is read: a file that changes meanwhile counts as new the next time.
        self.stamps = {name: stamp_of(name) for name in files.names}
        known = self.library.known()
        below = [path for path in known if _within(path, roots) and not _within(path, files.closed)]
        changed = {path for path in below if known[path] != self.stamps.get(path)}
        self.library.drop(changed)
        self.result.removed += sum(path not in self.stamps for path in changed)
        self.result.unchanged = len(below) - len(changed)
        for path, reason in files.closed.items():
            self._skip(path, reason)
        self.library.note("roots", sorted({*self.library.roots, *roots}))
        present = known.keys() - changed
        return Raw(tuple(video for video in files.videos if str(video.path) not in present))

    def add(self, files: Raw, model: Model, batch_size: int | None, workers: int | None) -> None:
        """Read files, and put each into the library as soon as it has been read."""
        names = files.names
        with closing(_read(model, files.videos, batch_size, workers)) as predictions:
            for prediction in predictions:
                name = names[prediction.row]
                stamp = self.stamps[name]
                if prediction.fault is not None or stamp is None:
                    self._skip(name, prediction.fault or "it was not there")
                    continue
                unit, _ = directions(prediction.feature[None])
                self.library.put(name, stamp, prediction.windows, unit[0].numpy())
                self.result.added += 1

    def _skip(self, path: str, reason: str) -> None:
        self.result.unreadable += 1
        self._on_unreadable(path, reason)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (links stay as they are)


def _within(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root.rstrip(os.sep)}{os.sep}") for root in roots)
