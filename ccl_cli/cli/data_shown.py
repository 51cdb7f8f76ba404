"""What ``ccl data`` prints: for people on a terminal, and in plain lines elsewhere."""

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
    from ccl_cli.data.checks.prepare import Prepared
    from ccl_cli.data.checks.statistics import Statistics
    from ccl_cli.data.checks.verify import Report
    from ccl_cli.data.sources.about import About
    from ccl_cli.registry import Plugin

_SIZES = 8  # frame sizes to print, the commonest first
_REASONS = 5  # unreadable videos to print
_KEY = 14


def as_json(plugin: Plugin, said: About) -> dict[str, Any]:
    """One source, as plain values."""
    source = {"name": plugin.label, "package": plugin.origin, "about": said.text, "example": said.example}
    published = said.published
    if published is None:
        return source
    file = published.list_file
    return source | {
        "list": {"title": file.title, "url": file.url, "place": str(published.list_place)},
        "videos": published.advice.format(folder=shlex.quote(str(published.home))),
    }


def sources(found: Sequence[tuple[Plugin, About]]) -> None:
    """Each source: what it is, what to type, and where to get what is published."""
    from ccl_cli.registry import OWN_DISTRIBUTION

    for number, (plugin, said) in enumerate(found):
        source = as_json(plugin, said)
        lines = [("", said.text)]
        if plugin.distribution != OWN_DISTRIBUTION:
            lines.append(("package", plugin.origin))
        if said.example:
            lines.append(("type", f"--data {shlex.quote(said.example)}"))
        if "list" in source:
            listed = source["list"]
            lines += [(listed["title"], listed["url"]), (" ", f"goes to {listed['place']}")]
            lines.append(("videos", source["videos"]))
            lines.append(("then", f"ccl data prepare {plugin.label} --videos DIR"))
        print("\n" * bool(number) + _bold(plugin.label))
        for key, text in lines:
            print(_wrapped(key, text))


def prepared(done: Prepared, per_class: bool) -> None:
    """What was counted, what cannot be read, and where the manifest is."""
    from ccl_cli.data.checks.prepare import COLUMNS

    if per_class:
        rows = [
            [name, split, *(str(row[column]) for column in COLUMNS)]
            for split, classes in done.counts.items()
            for name, row in classes.items()
        ]
        _table(["class", "split", *COLUMNS], rows)
    totals = done.totals()
    _table(["videos", *totals], [[name, *(str(row[name]) for row in totals.values())] for name in COLUMNS])
    bad = list(done.unreadable.items())
    if bad:
        _table(["unreadable", "reason"], bad[:_REASONS])
    if len(bad) > _REASONS:
        print(f"{len(bad) - _REASONS} more: `ccl data verify manifest:{done.path}` lists them")
    print(f"{done.path}: {len(done.manifest.videos)} videos, hash {done.manifest.hash}")
    print(f"Use it with --data manifest:{done.path}")


def report(found: Report, show: int) -> None:
    """How many videos have which problem, then the first files of each."""
    from ccl_cli.data.checks.verify import PROBLEMS

    columns = ("videos", *PROBLEMS)
    rows = [[split, *(str(row[column]) for column in columns)] for split, row in found.counts().items()]
    _table(["split", *columns], rows)
    gap = ": " if console.plain(sys.stdout) else f"\n{'':<11}"
    for problem in PROBLEMS:
        having = [each for each in found.problems if each.problem == problem]
        for each in having[:show]:
            print(f"{problem:<10} {visible(each.path)}{gap}{visible(each.reason)}")
        if show and len(having) > show:
            print(f"{problem:<10} and {len(having) - show} more")


def statistics(found: Statistics, per_class: bool) -> None:
    """Counts by state of sound, then percentiles of what was measured, then frame sizes."""
    from ccl_cli.data.checks.statistics import STATES

    names = found.manifest.classes
    if per_class:
        rows = [
            [name, split, *map(str, found.of_class(split, label).values())]
            for split in found.splits()
            for label, name in enumerate(names)
        ]
        _table(["class", "split", *STATES], rows)
    rows = []
    for split in found.splits():
        states, hours = found.of_split(split), sum(found.values[split, "seconds"]) / 3600
        rows.append([split, str(sum(states.values())), *map(str, states.values()), f"{hours:.2f}"])
    _table(["split", "videos", *STATES, "hours"], rows)
    _percentiles(found)
    print(f"{len(names)} classes, hash {found.manifest.hash}")


def _percentiles(found: Statistics) -> None:
    from ccl_cli.data.checks.statistics import MEASURES, PERCENTILES

    heads = {0: "least", 50: "median", 100: "most"}
    rows = [
        [MEASURES[name], split, *(f"{at:.6g}" for at in values)]
        for split in found.splits()
        for name, values in found.percentiles(split).items()
    ]
    if rows:
        heads_shown = [heads.get(percent, f"{percent} %") for percent in PERCENTILES]
        _table(["of a video", "split", *heads_shown], rows)
    sizes = found.sizes.most_common(_SIZES)
    if sizes:
        shown = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes)
        others = len(found.sizes) - len(sizes)
        print(_wrapped("", f"Frame sizes: {shown}{f' and {others} others' if others else ''}").strip())


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
