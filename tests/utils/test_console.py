from __future__ import annotations

import io
import logging
import re
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


@pytest.mark.parametrize(
    "said",
    [
        "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:60068",
        "NCCL error in: ProcessGroupNCCL.cpp:2013, remote process exited or there was a network error",
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?",
    ],
)
def test_a_lost_peer_is_told_in_one_sentence(monkeypatch, capsys, said):
    monkeypatch.setenv("RANK", "0")
    assert console.report(RuntimeError(said)) == 6
    assert capsys.readouterr().err == "Error: Another process of this run failed; see its error message.\n"


@pytest.mark.parametrize(
    ("rank", "error"),
    [
        (None, RuntimeError("Connection closed by peer")),  # one process has no peers
        ("0", RuntimeError("NCCL: Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 50")),
        ("0", ValueError("Connection closed by peer")),
    ],
)
def test_other_errors_of_connected_processes_keep_their_words(monkeypatch, capsys, rank, error):
    monkeypatch.delenv("RANK", raising=False)
    if rank:
        monkeypatch.setenv("RANK", rank)
    assert console.report(error) == 1
    assert str(error) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rank", "launched", "begins"),
    [("0", False, "Error: "), ("1", False, "Error (process 1): "), ("1", True, "Error: ")],
)
def test_the_other_processes_of_a_foreign_launcher_say_which_they_are(
    monkeypatch, capsys, rank, launched, begins
):
    monkeypatch.setenv("RANK", rank)
    if launched:
        monkeypatch.setenv(console.LAUNCHED, "1")
    console.report(DataError("No video."))
    assert capsys.readouterr().err == f"{begins}No video.\n"


def test_rows_that_come_one_by_one_fit_the_terminal(monkeypatch):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    lines = console.Lines(["video", "class"], [60, 5])
    lines.row("a/" * 30 + "end.mp4", "right")
    lines.row("\x1b[31m日本", "down")
    head, first, second = terminal.getvalue().splitlines()
    assert "video" in head
    assert first.startswith("…")
    assert first.endswith("/end.mp4  right")
    assert len(first) == 40
    assert second.startswith("\\x1b[31m日本 ")
    assert second.endswith("  down")


def test_rows_in_a_file_are_whole(capsys):
    lines = console.Lines(["video", "class"], [300, 5])
    lines.row("a" * 300, "right")
    lines.row("b", "down")
    rows = [f"video{' ' * 295}  class", f"{'a' * 300}  right", f"b{' ' * 299}  down"]
    assert capsys.readouterr().out.splitlines() == rows


def test_figures_stand_whole_below_the_bar_of_a_narrow_terminal(monkeypatch):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    console.configure()
    lines = [
        "loss 14.535  ce 2.490  acc 9%  val top-1 53.2%",
        "audio:small  nce 3.403",
        "9.5 clips/s  data wait 6%",
    ]
    with Reporter("train", 640) as reporter:
        reporter.advance(123, text="plain", lines=lines)
        reporter.advance()
    shown = terminal.getvalue()
    assert all(line in shown for line in [*lines, "124/640"])
    assert "plain" not in shown
    assert shown.rstrip().splitlines()[-1].endswith(f"train: step 124/640  {lines[0]}")


def test_without_a_terminal_each_result_is_one_line(caplog):
    caplog.set_level(logging.INFO, logger="ccl")
    with Reporter("bench", 3, done=1, unit="cell") as reporter:
        reporter.advance(0, text="started")
        reporter.result("baseline seed 0: top-1 45.0")
        reporter.line()
        reporter.result("baseline seed 1: top-1 46.0")
    assert caplog.messages == [
        "bench: cell 2/3  baseline seed 0: top-1 45.0",
        "bench: cell 3/3  baseline seed 1: top-1 46.0",
    ]


def test_results_do_not_go_where_the_progress_bar_goes(monkeypatch):
    """While a bar is shown on stderr, what is written to a file must not be taken for its output."""
    file, terminal = io.StringIO(), use_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(console.logging.getLogger("ccl"), "level", logging.INFO)
    out = console.Stdout()
    with Reporter("t", 2) as reporter:
        assert sys.stdout is not file
        out.write("a row\n")
        reporter.advance()
    assert file.getvalue() == "a row\n"
    assert "a row" not in terminal.getvalue()


def test_a_terminal_gets_whole_words_and_commands_stay_on_their_line(monkeypatch, capsys):
    monkeypatch.setattr(console, "plain", lambda stream: False)
    monkeypatch.setenv("COLUMNS", "40")
    message = "The videos of this data set are not on the disk."
    console.report(DataError(message, "Get them:\n  curl -LO https://example.org/a/very/long/address.zip"))
    lines = re.sub("\033\\[[0-9;]*m", "", capsys.readouterr().err).splitlines()
    assert lines == [
        "Error: The videos of this data set are",
        "not on the disk.",
        "  Get them:",
        "  curl -LO https://example.org/a/very/long/address.zip",
    ]
