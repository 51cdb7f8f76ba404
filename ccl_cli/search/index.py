"""Make a library, or bring it up to date: only files that are new or have changed are looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ccl_cli.data.video_paths import Raw, list_videos
from ccl_cli.deploy.predict import Model, fingerprint, load_student, see
from ccl_cli.errors import DataError, EnvironmentError_, UsageError
from ccl_cli.evaluation.metrics import directions
from ccl_cli.search.approximate import build, check_installed, forget
from ccl_cli.search.store import FILE, Library, Stamp, create, open_library, stamp_of
from ccl_cli.training.runs import locate_model
from ccl_cli.utils.files import hold, remove_leftovers
from ccl_cli.utils.signals import stopping_here

Tell = Callable[[str, str], None]


@dataclass
class Updated:
    """What an update has done.

    Attributes:
        folder: The library's.
        videos: How many it holds now.
        added: New or changed ones that were looked at.
        removed: Those that are gone, or were forgotten.
        kept: Those below the same folders that had not changed.
        unreadable: How many files and folders could not be read.
    """

    folder: str
    videos: int = 0
    added: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: int = 0


class _Lazy:
    """A model that is opened when it is needed: often nothing has changed."""

    def __init__(self, path: Path, opened: Model | None = None) -> None:
        self.path, self._opened = path, opened

    def open(self) -> Model:
        return self._opened or load_student(self.path)


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
    tell: Tell = lambda path, reason: None,
) -> Updated:
    """Bring a library up to date with files and folders; what it holds from elsewhere stays.

    Every video is kept as soon as it has been looked at, so that a kill costs those at hand.

    Args:
        paths: Files and folders; none: those that the library was made from.
        folder: The library's; made where there is none.
        model: A run folder or model file; None: the library's own, for a new one the newest run's.
        forget_paths: Files and folders to take out.
        rebuild: Begin with an empty library.
        approximate: Make an index for approximate search too.
        batch_size: Windows per forward pass; default the recipe's.
        workers: Decoding processes; default as for :func:`ccl_cli.deploy.predict.see`.
        tell: Is called with each path that cannot be read, and the reason.

    Raises:
        UsageError: nothing to index, a folder that holds something else, another model, or another process.
        DataError: a path that is not there, or a damaged library.
        Interrupted: told to stop.
    """
    folder, model = Path(folder), Path(model) if model else None
    _check_folder(folder)
    if approximate:
        check_installed()
    raw, roots = _listed(folder, [Path(path) for path in paths], bool(forget_paths))
    lock = folder / ".lock", f"Another process brings '{folder}' up to date.", "Wait for it to end."
    stopped = f". What was looked at is in '{folder}'.", "The same command goes on."
    # Opened first: without a model no folder is made.
    fresh = load_student(model) if _begins_anew(folder, rebuild) else None
    try:
        with hold(*lock), stopping_here(*stopped):
            remove_leftovers(folder)
            opened = _made(folder, model, rebuild, fresh)
            with open_library(folder, write=True) as library:
                work = _Update(library, folder, tell)
                work.forget(forget_paths)
                work.bring(raw, roots, opened, batch_size, workers)
                if approximate:
                    build(library, folder)
    except OSError as error:
        raise EnvironmentError_(
            f"The library '{folder}' cannot be written: {error.strerror or error}.",
            "What was looked at is kept: make room, and give the same command again.",
        ) from error
    return work.done


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file.", "A library is a folder: name another one.")
    ours = {".lock", FILE}
    if folder.is_dir() and not (folder / FILE).exists():
        strange = [path.name for path in folder.iterdir() if path.name not in ours and path.suffix != ".tmp"]
        if strange:
            raise UsageError(f"'{folder}' is not a library, and not empty.", "Name a new folder.")


def _listed(folder: Path, paths: Sequence[Path], forgetting: bool) -> tuple[Raw, list[str]]:
    """The files to keep, and the paths that they were found below."""
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


def _begins_anew(folder: Path, rebuild: bool) -> bool:
    return rebuild or not (folder / FILE).is_file()


def _made(folder: Path, model: Path | None, rebuild: bool, fresh: Model | None) -> _Lazy:
    """The library's model, once there is a library of that model."""
    if _begins_anew(folder, rebuild):
        opened = fresh or load_student(model)
        dim = opened.artefact.student.feature_dim
        forget(folder)
        create(folder, model=opened.path, fingerprint=opened.fingerprint, dim=dim)
        return _Lazy(opened.path, opened)
    return _Lazy(own_model(folder, model))


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
            "Name where it is now with --model, or make the library anew with ccl index --rebuild.",
        )
    if fingerprint(path) != expected:
        raise UsageError(
            f"The library '{folder}' was made by another model than '{path}' holds: their features cannot be "
            "compared.",
            "Name its own with --model, or make the library anew with ccl index --rebuild.",
        )
    return path


class _Update:
    """One update of an open library."""

    def __init__(self, library: Library, folder: Path, tell: Tell) -> None:
        self.library, self.done, self._tell = library, Updated(str(folder)), tell
        self.known = library.known()

    def forget(self, paths: Sequence[Path]) -> None:
        """Take files and folders out, whether they are still there or not."""
        roots = [_absolute(path) for path in paths]
        gone = [path for path in self.known if _within(path, roots)]
        if paths and not gone:
            raise UsageError(f"The library holds nothing of '{paths[0]}'.", "Name it as it was indexed.")
        self._drop(gone)
        self.done.removed += len(gone)
        self.library.note("roots", [root for root in self.library.roots if not _within(root, roots)])

    def bring(
        self, raw: Raw, roots: Sequence[str], model: _Lazy, batch_size: int | None, workers: int | None
    ) -> None:
        """Look at what is new or has changed below some paths, and drop what is gone."""
        stamps = {name: stamp_of(name) for name in raw.names}  # before reading: what changes meanwhile is new
        below = [path for path in self.known if _within(path, roots) and not _within(path, raw.closed)]
        changed = [path for path in below if self.known[path] != stamps.get(path)]
        self._drop(changed)
        self.done.removed += sum(path not in stamps for path in changed)
        self.done.kept = len(below) - len(changed)
        for path, reason in raw.closed.items():
            self._pass_over(path, reason)
        self.library.note("roots", sorted({*self.library.roots, *roots}))
        todo = tuple(video for video in raw.videos if str(video.path) not in self.known)
        if todo:
            self._look(Raw(todo), stamps, model.open(), batch_size, workers)
        self.done.videos = len(self.library)

    def _look(
        self,
        raw: Raw,
        stamps: Mapping[str, Stamp | None],
        model: Model,
        batch_size: int | None,
        workers: int | None,
    ) -> None:
        names = raw.names
        # Else what is in the library would depend on when it was interrupted.
        found = see(model, raw.videos, title="index", batch_size=batch_size, workers=workers, mixed=False)
        with closing(found):
            for seen in found:
                name = names[seen.row]
                stamp = stamps[name]
                if seen.fault is not None or stamp is None:
                    self._pass_over(name, seen.fault or "it was not there")
                    continue
                unit, _ = directions(seen.feature[None])
                self.library.put(name, stamp, seen.windows, unit[0].numpy())
                self.done.added += 1

    def _pass_over(self, path: str, reason: str) -> None:
        self.done.unreadable += 1
        self._tell(path, reason)

    def _drop(self, paths: Sequence[str]) -> None:
        self.library.drop(paths)
        for path in paths:
            del self.known[path]


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (links stay as they are)


def _within(path: str, roots: Sequence[str] | Mapping[str, str]) -> bool:
    return any(path == root or path.startswith(f"{root.rstrip(os.sep)}{os.sep}") for root in roots)
