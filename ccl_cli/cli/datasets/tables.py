"""Output of ``ccl data``: tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.data.checks.check import Problem, Report
    from ccl_cli.data.sources.about import About
    from ccl_cli.registry import Plugin

_SIZES = 8  # frame sizes to print, most common first
_KEY = 14


def source_as_json(plugin: Plugin, about: About) -> dict[str, Any]:
    """One data source as JSON-serialisable values."""
    source = {"name": plugin.label, "package": plugin.origin, "about": about.text, "example": about.example}
    published = about.published
    if published is None:
        return source
    file = published.list_file
    return source | {
        "list": {"title": file.title, "url": file.url, "place": str(published.list_place)},
        "videos": published.advice.format(folder=shlex.quote(str(published.home))),
    }


def print_sources(sources: Sequence[tuple[Plugin, About]]) -> None:
    """Print the description, usage and download locations of each data source."""
    from ccl_cli.registry import OWN_DISTRIBUTION

    for number, (plugin, about) in enumerate(sources):
        source = source_as_json(plugin, about)
        lines = [("", about.text)]
        if plugin.distribution != OWN_DISTRIBUTION:
            lines.append(("package", plugin.origin))
        if about.example:
            lines.append(("type", f"--data {shlex.quote(about.example)}"))
        if "list" in source:
            file = source["list"]
            lines += [(file["title"], file["url"]), (" ", f"goes to {file['place']}")]
            lines.append(("videos", source["videos"]))
            lines.append(("then", f"ccl data prepare {plugin.label} --videos DIR"))
        print("\n" * bool(number) + _bold(plugin.label))
        for key, text in lines:
            print(_wrapped(key, text))


def print_report(report: Report, show: int, per_class: bool) -> None:
    """Print counts, the first files of each problem, percentiles and frame sizes."""
    from ccl_cli.data.checks.check import COLUMNS, PROBLEMS

    if per_class:
        rows = [
            [name, split, *map(str, counts.values())]
            for split, classes in report.classes.items()
            for name, counts in classes.items()
        ]
        _table(["class", "split", *COLUMNS], rows)
    rows = [
        [split, *map(str, counts.values()), f"{report.hours(split):.2f}"]
        for split, counts in report.splits.items()
    ]
    _table(["split", *COLUMNS, "hours"], rows)
    for problem in PROBLEMS if show else ():
        _print_problems([each for each in report.problems if each.problem == problem], show)
    _print_measures(report)
    print(f"{len(report.manifest.classes)} classes, hash {report.manifest.hash}")


def _print_problems(problems: Sequence[Problem], show: int) -> None:
    gap = ": " if console.plain(sys.stdout) else f"\n{'':<11}"
    for each in problems[:show]:
        print(f"{each.problem:<10} {visible(each.path)}{gap}{visible(each.reason)}")
    if len(problems) > show:
        print(f"{problems[0].problem:<10} and {len(problems) - show} more")


def _print_measures(report: Report) -> None:
    from ccl_cli.data.checks.check import MEASURES, PERCENTILES

    rows = [
        [MEASURES[measure], split, *(f"{value:.6g}" for value in values.values())]
        for split in report.splits
        for measure, values in report.percentiles(split).items()
    ]
    if not rows:
        return
    names = {0: "least", 50: "median", 100: "most"}
    _table(["of a video", "split", *(names.get(each, f"{each} %") for each in PERCENTILES)], rows)
    sizes = report.sizes.most_common(_SIZES)
    text = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes)
    others = len(report.sizes) - len(sizes)
    print(_wrapped("", f"Frame sizes: {text}{f' and {others} others' if others else ''}").strip())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console.print_table(columns, rows)
    if console.plain(sys.stdout):
        print()


def _bold(text: str) -> str:
    return text if console.plain(sys.stdout) else f"\033[1;36m{text}\033[0m"


def _wrapped(key: str, text: str) -> str:
    width = 10**6 if console.plain(sys.stdout) else shutil.get_terminal_size().columns
    return textwrap.fill(
        text,
        width,
        initial_indent=f"  {key:<{_KEY - 2}}" if key else "  ",
        subsequent_indent=" " * (_KEY if key else 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
