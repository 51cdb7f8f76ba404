"""Progress on stderr: a live bar on a terminal, and occasional lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from ccl_cli.utils import console

_LINE_SECONDS = 30.0
_log = logging.getLogger("ccl")


class Reporter:
    """Show progress on the main process, as a live bar or as occasional lines without a terminal."""

    def __init__(self, title: str, steps: int, done: int = 0, unit: str = "step") -> None:
        self._title, self._steps, self._done, self._unit = title, steps, done, unit
        self._text, self._logged = "", done
        self._lines: Sequence[str] = ()
        self._last_line = time.monotonic()
        terminal = Console(stderr=True)
        self._live = console.first_process() and terminal.is_terminal and _log.isEnabledFor(logging.INFO)
        self._bar = _Bar(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=terminal,
            disable=not self._live,
            redirect_stdout=sys.stdout.isatty(),  # results that go to a file must not go to the bar's stream
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task(title, total=steps, completed=done, lines=())

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._bar.stop()
        if self._live and error is None and self._text:  # the last metrics stay when the bar is gone
            self._live, self._text = False, self._lines[0]
            self.line()

    @property
    def has_text(self) -> bool:
        """Whether a text was set, which plain lines show after the position."""
        return bool(self._text)

    def advance(self, count: int = 1, text: str | None = None, lines: Sequence[str] | None = None) -> None:
        """Advance by some steps; set the text at the end of plain lines, and the lines below the bar."""
        self._done += count
        self._text = self._text if text is None else text
        self._lines = lines or (self._lines if text is None else [text])
        self._bar.update(self._task, completed=self._done, lines=self._lines)
        if not self._live and time.monotonic() - self._last_line > _LINE_SECONDS:
            self.line()

    def result(self, text: str) -> None:
        """Advance by one step and log its result as a line, with a progress bar too."""
        self._last_line = time.monotonic()
        self.advance()
        self._logged = self._done
        _log.info("%s: %s %d/%d  %s", self._title, self._unit, self._done, self._steps, text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar while another one is shown."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def line(self) -> None:
        """Log one plain line, unless the bar is shown or there is no progress since the last line."""
        self._last_line = time.monotonic()
        if console.first_process() and not self._live and self._done != self._logged:
            self._logged = self._done
            text = f"  {self._text}" if self._text else ""
            _log.info("%s: %s %d/%d%s", self._title, self._unit, self._done, self._steps, text)


class _Bar(Progress):
    """A progress bar with lines of metrics below it, because 80 columns are too few for both in one line."""

    def stop(self) -> None:
        """Stop the bar. Rich before 14.3 writes an empty line to stderr even if the bar was never shown."""
        if not self.disable:
            super().stop()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            yield from (Text(f"  {line}", "dim") for line in task.fields["lines"])


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show a download bar on a terminal; yield its update function (done, total), or None without a bar."""
    if console.plain(sys.stderr):
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
