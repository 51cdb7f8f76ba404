"""A good source of videos, and sources that are wrong in one thing each."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import DataError


def good(location: str) -> Manifest:
    root = Path(location).absolute()
    paths = sorted(root.rglob("*.mp4")) if root.is_dir() else []
    if not paths:
        raise DataError(f"There is no video in '{root}'.")
    videos = (
        Video(path.relative_to(root).as_posix(), path, ("right", "down").index(path.parent.name), "train")
        for path in paths
    )
    return Manifest("good", ("right", "down"), tuple(videos))


def each(**change):
    """The good source with some values of each row changed."""

    def source(location: str) -> Manifest:
        videos = good(location).videos
        changed = (replace(v, **{name: function(v) for name, function in change.items()}) for v in videos)
        return replace(good(location), videos=tuple(changed))

    return source


def changed(**change):
    """The good source with other attributes of the manifest."""
    return lambda location: replace(good(location), **change)


COUNT = itertools.count()


def restless(location: str) -> Manifest:
    found = good(location)
    turn = next(COUNT) % len(found.videos)
    return replace(found, videos=[*found.videos[turn:], *found.videos[:turn]])


def takes_all(location: str, **options: object) -> Manifest:
    return good(location)


def trusting(location: str) -> Manifest:
    """A place that is not there is an empty list."""
    return good(location) if Path(location).is_dir() else Manifest("good", ("right", "down"), ())


def careless(location: str) -> Manifest:
    (Path(location) / "train").stat()
    return good(location)


WRONG = [
    ("manifest", lambda location: list(good(location).videos)),
    ("manifest", changed(name="")),
    ("classes", changed(classes=("right", ""))),
    ("classes", changed(classes=("right", "right"))),
    ("rows", each(id=lambda video: "same")),
    ("rows", each(id=lambda video: str(video.path))),
    ("rows", each(label=lambda video: 7)),
    ("rows", each(path=lambda video: Path("relative") / video.path.name)),
    ("order", restless),
    ("videos", each(start=lambda video: 100.0)),
    ("videos", each(path=lambda video: Path(__file__))),
    ("unknown option", takes_all),
    ("wrong place", trusting),
    ("wrong place", careless),
]
