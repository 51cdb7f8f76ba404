"""What ccl relies on in a data source, tried on a real location."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ccl_cli import registry
from ccl_cli.config.spec import parse_data
from ccl_cli.data.manifest import DataSource, Manifest
from ccl_cli.data.sources import load_source
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.storage import Packed
from ccl_cli.errors import CclError, DataError, RecipeError
from ccl_cli.testing.verdicts import Checks, Skip, Unmet, Verdict, expect


@dataclass
class Trial:
    """A data source, and what it makes of one location."""

    name: str
    source: DataSource
    location: str
    options: dict[str, Any]
    manifest: Manifest

    def load(self, location: str, **options: Any) -> Manifest:
        """As ``--data`` does."""
        return load_source(self.name, self.source, location, self.options | options)


check = Checks[Trial]()


def verdicts(source: DataSource | str, location: str = "") -> Iterator[Verdict]:
    """Try a source, by what is typed after ``--data`` or by its function and a location."""
    if isinstance(source, str):
        spec = parse_data(source)
        plugin = registry.find(registry.DATASETS, spec.kind)
        function = registry.load(plugin)
        load = partial(load_source, spec.kind, function)
        with registry.blaming(plugin):
            manifest = load(spec.name, spec.options)
        yield from check.verdicts(Trial(spec.kind, function, spec.name, spec.options, manifest))
    else:
        name = getattr(source, "__name__", "source")
        manifest = load_source(name, source, location, {})
        yield from check.verdicts(Trial(name, source, location, {}, manifest))


@check("manifest")
def _manifest(trial: Trial) -> None:
    found = trial.manifest
    expect(isinstance(found, Manifest), "a Manifest", type(found).__name__, "Return one.")
    expect(bool(found.name), "a name, which tables show", repr(found.name), "Name it.")
    fine = isinstance(found.videos, tuple) and isinstance(found.classes, tuple)
    expect(fine, "tuples of classes and of videos", "something else", "Turn lists into tuples.")


@check("classes", needs=("manifest",))
def _classes(trial: Trial) -> None:
    classes = trial.manifest.classes
    named = all(isinstance(name, str) and name for name in classes)
    expect(named and bool(classes), "the names of the classes", repr(classes[:3]), "Give each a name.")
    twice = [name for name in classes if classes.count(name) > 1]
    expect(not twice, "classes of different names", f"'{twice[:1]}' twice", "List each class once.")


@check("rows", needs=("classes",))
def _rows(trial: Trial) -> None:
    trial.manifest.validate()
    for video in trial.manifest.videos:
        expect(
            _tidy(video.id),
            "ids such as 'class/name', the same on every machine",
            repr(video.id),
            "Make them of the path below the root, by .as_posix().",
        )
        placed = video.path.is_absolute() if isinstance(video.path, Path) else isinstance(video.path, Packed)
        expect(placed, "absolute paths", repr(video.path), "Write Path(...).absolute().")


@check("order", needs=("rows",))
def _order(trial: Trial) -> None:
    again = trial.load(trial.location)
    expect(
        [video.id for video in again.videos] == [video.id for video in trial.manifest.videos]
        and again.hash == trial.manifest.hash,
        "the same list every time",
        "another one",
        "Sort what the disk lists, and seed what is random.",
    )


@check("round trip", needs=("rows",))
def _round_trip(trial: Trial) -> None:
    with TemporaryDirectory(prefix="ccl-manifest-") as folder:
        path = Path(folder) / "manifest.jsonl"
        try:
            trial.manifest.save(path)
        except TypeError as error:
            raise Unmet(
                "plain numbers and texts in each row", str(error), "Write int(label), float(start)."
            ) from error
        again = Manifest.load(path)
    expect(
        again.hash == trial.manifest.hash,
        "the same list after `ccl data prepare`",
        "another hash",
        "Use plain str, int and float in each row.",
    )


@check("videos", needs=("rows",))
def _videos(trial: Trial) -> None:
    rows = zip(trial.manifest.videos, trial.manifest.sizes, strict=True)
    there = [video for video, size in rows if size is not None]
    if not there:
        raise Skip("none of its videos is on this machine")
    reasons = []
    for video in there[:3]:
        try:
            first, count = open_video(video.path).metadata.frame_range(video.start, video.end)
            read_frames(video.path, first, min(count, 2))
            return
        except DataError as error:
            reasons.append(error.message)
    raise Unmet("videos that can be read", reasons[0], "Correct the paths and the stretches, in seconds.")


@check("unknown option")
def _unknown_option(trial: Trial) -> None:
    try:
        trial.load(trial.location, no_such_option=1)
    except RecipeError:
        return
    raise Unmet(
        "an unknown option to be refused",
        "it was taken",
        "Name every option as a keyword of the function, instead of **options.",
    )


@check("wrong place")
def _wrong_place(trial: Trial) -> None:
    with TemporaryDirectory(prefix="ccl-place-") as folder:
        (Path(folder) / "file").touch()
        try:
            trial.load(f"{folder}/file/absent")
        except CclError:
            return
        except Exception as error:
            raise Unmet(
                "a DataError for a place that is not there",
                f"{type(error).__name__}: {error}",
                "Look whether it is there, and raise ccl_cli.errors.DataError with a sentence.",
            ) from error
    raise Unmet(
        "a DataError for a place that is not there", "a list of videos", "Raise ccl_cli.errors.DataError."
    )


def _tidy(name: object) -> bool:
    return isinstance(name, str) and not name.startswith("/") and "\\" not in name
