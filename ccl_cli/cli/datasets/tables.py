"""Output of ``ccl data check``: tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.data.checks.check import Report

_SIZES = 8  # frame sizes to print, most common first


def print_report(report: Report, show: int, per_class: bool, advice: str = "") -> None:
    """Print counts, the first files of each problem, percentiles and frame sizes."""
    from ccl_cli.data.checks.check import COLUMNS, PERCENTILES, PROBLEMS

    if per_class:
        rows = [
            [name, split, *map(str, counts.values())]
            for split, classes in report.classes.items()
            for name, counts in classes.items()
        ]
        _print_table(["class", "split", *COLUMNS], rows)
    rows = [
        [split, *map(str, counts.values()), f"{report.hours(split):.2f}"]
        for split, counts in report.splits.items()
    ]
    _print_table(["split", *COLUMNS, "hours"], rows)
    for problem in PROBLEMS if show else ():
        of_kind = [each for each in report.problems if each.problem == problem]
        for each in of_kind[:show]:
            print(f"{problem:<10} {visible(each.path)}: {visible(each.reason)}")
        if len(of_kind) > show:
            print(f"{problem:<10} and {len(of_kind) - show} more")
    rows = [
        [measure, split, *(f"{value:.6g}" for value in values.values())]
        for split in report.splits
        for measure, values in report.percentiles(split).items()
    ]
    if rows:
        names = {0: "least", 50: "median", 100: "most"}
        _print_table(["of a video", "split", *(names.get(each, f"{each} %") for each in PERCENTILES)], rows)
        sizes = [f"{width}x{height} ({count})" for (width, height), count in report.sizes.most_common(_SIZES)]
        print(f"Frame sizes: {', '.join(sizes)}{', ...' * (len(report.sizes) > _SIZES)}")
    print(f"{len(report.manifest.classes)} classes, hash {report.manifest.hash}")
    if advice:
        print(advice)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console.print_table(columns, rows)
    print()
