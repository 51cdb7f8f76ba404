from __future__ import annotations

import io
import logging
import sys

import pytest

from ccl_cli.errors import DataError
from ccl_cli.utils import console
from ccl_cli.utils.progress import Reporter

pytestmark = pytest.mark.usefixtures("logging_as_before")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch) -> Terminal:
    """Standard output and error on a colour terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("", "")])
def test_errors_and_tables_are_plain_on_request(monkeypatch, name, value):
    terminal = use_terminal(monkeypatch)
    rows = [("[red]x[/red]", "a" * 200)]
    if name:
        monkeypatch.setenv(name, value)
    assert console.report(DataError("No video.", "Get one.")) == 4
    console.print_table(["name", "text"], rows)
    assert ("\033[1;31mError: \033[0mNo video.\n" in terminal.getvalue()) == (not name)
    assert "[red]x[/red]" in terminal.getvalue()
    if name:
        assert terminal.getvalue().endswith(f"name          text\n[red]x[/red]  {'a' * 200}\n")
        assert "\033" not in terminal.getvalue()


@pytest.mark.parametrize(("rank", "lines"), [("0", [" hello you", " Warning: careful"]), ("1", [])])
def test_only_the_first_process_logs_with_the_time_but_all_report_errors(monkeypatch, rank, lines):
    monkeypatch.setenv("RANK", rank)
    console.configure()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)  # as a progress bar does
    logging.getLogger("ccl.x").info("hello %s", "you")
    logging.getLogger("ccl.x").warning("careful")
    logging.getLogger("ccl.x").error("broken")
    logged = stream.getvalue().splitlines()
    assert [line[8:] for line in logged] == [*lines, " Error: broken"]
    assert {line[2] + line[5] for line in logged} == {"::"}


@pytest.mark.parametrize(
    ("rank", "launched", "error", "code", "printed"),
    [
        (
            "0",
            False,
            RuntimeError("[tcp/pair.cc:547] Connection closed by peer"),
            6,
            "Error: Another process",
        ),
        ("0", False, RuntimeError("NCCL.cpp:13, remote process exited"), 6, "Error: Another process"),
        ("0", True, RuntimeError("Connection was likely closed. Did"), 69, "Error: Another process"),
        ("0", False, RuntimeError("NCCL: Duplicate GPU detected"), 1, "Error: Internal error: RuntimeE"),
        ("0", False, ValueError("Connection closed by peer"), 1, "Error: Internal error: ValueError"),
        (None, False, RuntimeError("Connection closed by peer"), 1, "Error: Internal error: RuntimeE"),
        ("1", False, DataError("No video."), 4, "Error (process 1): No video."),
        ("1", True, DataError("No video."), 4, "Error: No video."),
    ],
)
def test_errors_of_connected_processes(monkeypatch, capsys, rank, launched, error, code, printed):
    for name, value in {"RANK": rank, console.LAUNCHED: launched and "1"}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert console.report(error) == code
    assert capsys.readouterr().err.startswith(printed)


def test_rows_that_come_one_by_one(capsys):
    for cells in (["video", "class"], ["\x1b[31m日本", "down"]):
        console.print_row(cells, [14, 5])
    assert capsys.readouterr().out.splitlines() == ["video           class", "\\x1b[31m日本      down"]


def test_metrics_are_whole_below_the_bar_of_a_narrow_terminal(monkeypatch):
    terminal = use_terminal(monkeypatch)
    console.configure()
    lines = [f"loss 14.535  ce {'2' * 30}  val top-1 53.2%", "audio:small  nce 3.403"]
    with Reporter("train", 640) as reporter:
        reporter.advance(123, text="plain", lines=lines)
        reporter.advance()
    shown = terminal.getvalue()
    assert all(line in shown for line in [*lines, "124/640"])
    assert "plain" not in shown
    assert shown.rstrip().splitlines()[-1].endswith(f"train: step 124/640  {lines[0]}")


def test_without_a_terminal_each_result_is_one_line(caplog):
    caplog.set_level(logging.INFO, logger="ccl")
    with Reporter("bench", 2, unit="cell") as reporter:
        reporter.advance(0, text="started")
        reporter.result("baseline seed 0: top-1 45.0")
        reporter.line()
        reporter.result("baseline seed 1: top-1 46.0")
    assert caplog.messages == [f"bench: cell {n + 1}/2  baseline seed {n}: top-1 {45 + n}.0" for n in (0, 1)]


def test_results_do_not_go_where_the_progress_bar_goes(monkeypatch):
    file, terminal = io.StringIO(), use_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", file)
    console.configure()
    with Reporter("t", 2) as reporter:
        print("a row")
        reporter.advance()
    assert file.getvalue() == "a row\n"
    assert "a row" not in terminal.getvalue()
