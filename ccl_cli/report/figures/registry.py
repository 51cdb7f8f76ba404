"""All figures by name; writes a figure to a file. A new figure needs one entry in ``FIGURES``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.errors import UsageError
from ccl_cli.report.figures import panel
from ccl_cli.report.figures.classes import classes
from ccl_cli.report.figures.confusion import confusion
from ccl_cli.report.figures.correspondence import correspondence
from ccl_cli.report.figures.curves import curves
from ccl_cli.report.figures.gallery import gallery
from ccl_cli.report.figures.overview import overview
from ccl_cli.report.figures.panel import SUFFIXES, PanelGrid
from ccl_cli.report.figures.tsne import tsne
from ccl_cli.report.records.results import Results, load_results
from ccl_cli.utils.files import atomic_path
from ccl_cli.utils.sentences import check_known

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, Callable[[Results], PanelGrid]] = {
    "overview": overview,
    "curves": curves,
    "classes": classes,
    "confusion": confusion,
    "gallery": gallery,
    "tsne": tsne,
    "correspondence": correspondence,
}


def check_suffix(path: Path) -> None:
    """Check the suffix of a figure's file before anything is computed.

    Raises:
        UsageError: the suffix is none of :data:`~ccl_cli.report.figures.panel.SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"'{path}' is no PNG, SVG or PDF file.", "Use the suffix .png, .svg or .pdf.")


def figure(name: str, *folders: Path | str, split: str = "test") -> Figure:
    """Draw one figure of the report with matplotlib.

    Args:
        name: ``overview``, ``curves``, ``classes``, ``confusion``, ``gallery``, ``tsne`` or
            ``correspondence``.
        folders: Run folders, or folders of runs. Default: the newest folder that contains an evaluated run.
        split: Evaluated split to show: "test" or "val".

    Raises:
        UsageError: there is no figure of that name.
        DataError: a folder does not exist, or its runs lack the data of the figure.
    """
    check_known("figure", name, FIGURES)
    return panel.figure(FIGURES[name](load_results([Path(folder) for folder in folders], split)))


def write_figure(results: Results, name: str, path: Path) -> None:
    """Write one figure with the light theme, in the format of the file's suffix.

    Raises:
        UsageError: the suffix is not .png, .svg or .pdf.
        DataError: the runs lack the data of the figure.
    """
    check_suffix(path)
    grid = FIGURES[name](results)
    with atomic_path(path) as temporary:
        panel.save(grid, temporary, path.suffix.lower())
