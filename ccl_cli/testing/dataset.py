"""Checks of data sources on a real location."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ccl_cli import registry
from ccl_cli.config.spec import parse_data
from ccl_cli.data.manifest import ABSENT, DataSource, Manifest
from ccl_cli.data.sources import load_source
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.storage import Packed
from ccl_cli.errors import CclError, DataError, RecipeError
from ccl_cli.testing.verdicts import Checks, Skip, Unmet, Verdict, expect


@dataclass
class Trial:
    """A data source, a location as after ``--data``, and the list of its videos."""

    name: str
    source: DataSource
    location: str
    options: dict[str, Any]

    def load(self, location: str, **options: Any) -> Manifest:
        """Load the data set as ``--data`` does."""
        return load_source(self.name, self.source, location, self.options | options)

    @cached_property
    def manifest(self) -> Manifest:
        """Result for the location."""
        return self.load(self.location)


check = Checks[Trial]()


def verdicts(source: DataSource | str, location: str = "") -> Iterator[Verdict]:
    """Check a source, given as after ``--data`` or as a function and a location."""
    if isinstance(source, str):
        spec = parse_data(source)
        plugin = registry.find(registry.DATASETS, spec.kind)
        trial = Trial(spec.kind, registry.load(plugin), spec.name, spec.options)
        with registry.blaming(plugin):
            _ = trial.manifest
    else:
        trial = Trial(getattr(source, "__name__", "source"), source, location, {})
        _ = trial.manifest
    yield from check.verdicts(trial)


@check()
def _manifest(trial: Trial) -> None:
    manifest = trial.manifest
    expect(isinstance(manifest, Manifest), f"a {type(manifest).__name__} instead of a Manifest.")
    expect(bool(manifest.name), "an empty name. Set the name, which tables show.")


@check("manifest")
def _classes(trial: Trial) -> None:
    classes = trial.manifest.classes
    labelled = bool(trial.manifest.videos.labelled.any())
    named = (bool(classes) or not labelled) and all(isinstance(name, str) and name for name in classes)
    expect(named, f"class names that are empty or not strings: {classes[:3]!r}. Give each class a name.")
    repeated = [name for name in classes if classes.count(name) > 1]
    expect(not repeated, f"a duplicate class: {repeated[:1]}. List each class once.")


@check("classes")
def _rows(trial: Trial) -> None:
    trial.manifest.validate()
    for video in trial.manifest.videos:
        portable = not video.id.startswith("/") and "\\" not in video.id
        expect(
            portable,
            f"an id that depends on the machine: {video.id!r}. "
            "Use the relative path as id, with .as_posix().",
        )
        absolute = isinstance(video.path, Packed) or video.path.is_absolute()
        expect(absolute, f"a relative path: {video.path!r}. Use Path(...).absolute().")


@check("rows")
def _order(trial: Trial) -> None:
    again = trial.load(trial.location)
    same = list(again.videos.ids) == list(trial.manifest.videos.ids)
    expect(
        same and again.hash == trial.manifest.hash,
        "a different list on the second call. Sort directory listings, and use fixed seeds.",
    )


@check("rows")
def _videos(trial: Trial) -> None:
    present = trial.manifest.videos.where(trial.manifest.sizes != ABSENT)
    if not present:
        raise Skip("none of its videos is on this machine")
    reasons = []
    for video in present[:3]:
        try:
            first, count = open_video(video.path).metadata.frame_range(video.start, video.end)
            read_frames(video.path, first, min(count, 2))
            return
        except DataError as error:
            reasons.append(error.message)
    raise Unmet(f"videos that cannot be read: {reasons[0]} Correct the paths and the segments, in seconds.")


@check()
def _unknown_option(trial: Trial) -> None:
    try:
        trial.load(trial.location, no_such_option=1)
    except RecipeError:
        return
    raise Unmet("an unknown option is accepted. Declare options as keyword arguments, without **options.")


@check()
def _wrong_place(trial: Trial) -> None:
    with TemporaryDirectory(prefix="ccl-place-") as folder:
        (Path(folder) / "file").touch()
        try:
            trial.load(f"{folder}/file/absent")
        except CclError:
            return
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        else:
            outcome = "a list of videos"
    raise Unmet(f"a missing location gives {outcome}. Raise ccl_cli.errors.DataError with a message.")
