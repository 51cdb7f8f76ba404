"""The plots of a page as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccl_cli.errors import UsageError
from ccl_cli.report import classes, confusion, correspondence, curves, gallery, overview, tsne
from ccl_cli.report.plot import SUFFIXES, Plot, save
from ccl_cli.report.study import Study
from ccl_cli.utils.files import atomic_path

FIGURES: dict[str, Callable[[Study], Plot]] = {
    "overview": overview.figure,
    "curves": curves.figure,
    "classes": classes.figure,
    "confusion": confusion.figure,
    "gallery": gallery.figure,
    "tsne": tsne.figure,
    "correspondence": correspondence.figure,
}


def check_suffix(path: Path) -> None:
    """Refuse a file that is no plot by its name, before anything is computed.

    Raises:
        UsageError: names what there is.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"'{path}' names no kind of picture.", "Let it end in .png, .svg or .pdf.")


def write_figure(study: Study, name: str, path: Path) -> None:
    """Write one plot, as its file's name ends: light, with a white ground.

    Raises:
        UsageError: neither PNG nor SVG nor PDF.
        DataError: the runs lack what the plot shows.
    """
    check_suffix(path)
    plot = FIGURES[name](study)
    with atomic_path(path) as temporary:
        save(plot, temporary, path.suffix.lower())
