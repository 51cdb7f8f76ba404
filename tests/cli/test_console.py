from __future__ import annotations

import io
import logging
import sys

import pytest

from ccl_cli import console
from ccl_cli.errors import DataError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch) -> Terminal:
    """Standard output and error on a colour terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_plain_lines_on_request_or_without_a_terminal(monkeypatch, name, value):
    terminal = use_terminal(monkeypatch)
    assert not console.plain(terminal)
    assert console.plain(io.StringIO())
    monkeypatch.setenv(name, value)
    assert console.plain(terminal)


def test_an_error_is_red_on_a_terminal_only(monkeypatch):
    terminal = use_terminal(monkeypatch)
    assert console.report(DataError("No video.", "Get one.")) == 4
    assert terminal.getvalue().startswith("\033[1;31mError: \033[0mNo video.\n")
    terminal.seek(0)
    terminal.truncate(0)
    monkeypatch.setenv("NO_COLOR", "1")
    console.report(DataError("No video."))
    assert "\033" not in terminal.getvalue()


def test_a_table_keeps_brackets_and_long_cells(monkeypatch):
    terminal = use_terminal(monkeypatch)
    rows = [("[red]x[/red]", "a" * 200)]
    console.print_table(["name", "text"], rows)
    assert "[red]x[/red]" in terminal.getvalue()
    terminal.seek(0)
    terminal.truncate(0)
    monkeypatch.setenv("NO_COLOR", "1")
    console.print_table(["name", "text"], rows)
    assert terminal.getvalue() == f"name          text\n[red]x[/red]  {'a' * 200}\n"


def test_logs_carry_the_time_in_a_file_and_go_through_what_stands_in_for_stderr(monkeypatch):
    console.configure()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger("ccl.x").info("hello %s", "you")
    logging.getLogger("ccl.x").warning("careful")
    first, second = stream.getvalue().splitlines()
    assert first[2] == first[5] == ":"
    assert first[8:] == " hello you"
    assert second[8:] == " Warning: careful"


@pytest.mark.parametrize(("rank", "lines"), [("0", 2), ("1", 1)])
def test_only_the_first_process_logs_but_all_report_errors(monkeypatch, rank, lines):
    monkeypatch.setenv("RANK", rank)
    console.configure(verbose=True)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger("ccl").warning("one")
    logging.getLogger("ccl").error("two")
    assert len(stream.getvalue().splitlines()) == lines
