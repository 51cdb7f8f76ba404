"""The pictures of a page as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccl_cli.errors import UsageError
from ccl_cli.files import atomic_path
from ccl_cli.report import classes, confusion, correspondence, curves, gallery, tsne
from ccl_cli.report.drawing import Drawing
from ccl_cli.report.study import Study
from ccl_cli.report.svg import document

FIGURES: dict[str, Callable[[Study], Drawing]] = {
    "curves": curves.figure,
    "classes": classes.figure,
    "confusion": confusion.figure,
    "gallery": gallery.figure,
    "tsne": tsne.figure,
    "correspondence": correspondence.figure,
}


def check_suffix(path: Path) -> None:
    """Refuse a file that is neither PNG nor SVG by its name, before anything is computed.

    Raises:
        UsageError: names what there is.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"'{path}' names no kind of picture.", "Let it end in .png or .svg.")


def write_figure(study: Study, name: str, path: Path) -> None:
    """Write one picture, as its file's name ends: light, with a white ground.

    Raises:
        UsageError: neither PNG nor SVG.
        DataError: the runs lack what the picture shows.
    """
    check_suffix(path)
    drawing = FIGURES[name](study)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".svg":
            temporary.write_text(document(drawing), encoding="utf-8")
        else:
            from ccl_cli.report.png import png

            temporary.write_bytes(png(drawing))
