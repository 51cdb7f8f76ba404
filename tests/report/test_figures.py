from __future__ import annotations

import json
import math
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ccl_cli.errors import DataError, UsageError
from ccl_cli.report.figures import (
    FIGURES,
    ClassGain,
    class_panels,
    curve_panels,
    figure,
    overview_legend,
    overview_panels,
    write_figure,
)
from ccl_cli.report.plot import inline
from ccl_cli.report.results import load_results
from ccl_cli.report.runs import curves
from ccl_cli.report.style import LIGHT
from tests.report.folders import write_bench, write_cell, write_failed
from tests.report.plots import axes_of, texts

RUNS = Path("runs/x")


def write(label, setup, *top1, **rest):
    for seed, value in enumerate(top1):
        write_cell(RUNS, label, setup, seed, method="ccl", top1=value, **rest)


def labels(panel):
    return [label.get_text() for label in axes_of(panel).get_yticklabels()]


def lines(panel):
    """What is drawn on each row, by its shape: x values."""
    by_row = {}
    for line in axes_of(panel).lines:
        if set(line.get_ydata()) <= set(range(20)) and line.get_linestyle() != "--":
            shape = line.get_marker() if line.get_marker() != "None" else "interval"
            by_row.setdefault(int(line.get_ydata()[0]), {})[shape] = [*map(float, line.get_xdata())]
    return by_row


def test_each_seed_the_mean_and_its_interval():
    write("baseline", "", 40.0, 44.0)
    write("fitnet", "A", 41.0)
    write("ccl", "A", 51.0, 52.0, 56.0)
    results = load_results([RUNS])
    (panel,) = overview_panels(results)
    assert labels(panel) == ["baseline", "fitnet A", "ccl A"]
    _, one_seed, row = lines(panel).values()
    assert (row["o"], row["|"]) == ([51.0, 52.0, 56.0], [53.0])
    # Student's t for two degrees of freedom is 4.3027; the standard deviation is sqrt(7)
    half = 4.30265 * math.sqrt(7 / 3)
    assert row["interval"] == pytest.approx([53 - half, 53 + half], abs=1e-3)
    assert set(one_seed) == {"o", "|"}  # there is no interval
    assert {"53.0", "42.0", "Top-1 on ucf51-split1 (%)"} <= set(texts(inline(panel)))
    assert panel.text == "top-1 on ucf51-split1: baseline 42.0, fitnet A 41.0, ccl A 53.0"
    drawn = axes_of(panel).lines
    assert [line.get_xdata()[0] for line in drawn if line.get_linestyle() == "--"] == [42.0]
    colours = [line.get_color() for line in drawn if line.get_marker() == "|"]
    assert colours == [LIGHT["ink"], results.colour("fitnet"), results.colour("ccl")]


def test_an_interval_that_is_much_wider_than_the_seeds_ends_in_arrows():
    write("ccl", "A", 50.0, 56.0)
    write("ccl", "I", 30.0, 30.1)
    rows = lines(overview_panels(load_results([RUNS]))[0])
    low, high = rows[0]["interval"]
    assert low < 30.0
    assert set(rows[0]) == {"interval", "o", "|", "<", ">"}
    assert rows[0]["<"][0] > low
    assert rows[0][">"][0] < high
    assert set(rows[1]) == {"interval", "o", "|"}


def test_recognition_and_retrieval_side_by_side():
    root = write_bench(Path("runs/b"))
    results = load_results([root])
    recognition, retrieval = overview_panels(results)
    assert (recognition.heading[:6], retrieval.heading[:4]) == ("Top-1 ", "R@1 ")
    assert sum(panel.width for panel in FIGURES["overview"](results)[0]) == 800
    assert overview_legend(results).endswith("dashed: baseline; A: audio; I: image")


def test_ablations_are_shown_where_they_are_few():
    write("baseline", "", 40.0)
    write("ccl", "A", 51.0)
    write("ccl w L_ct", "A", 50.0, table="ablation")
    assert labels(overview_panels(load_results([RUNS]))[0]) == ["baseline", "ccl A", "ccl w L_ct A"]
    for setup in ("I", "AI"):
        for label in ("ccl", "fitnet", "crd", "pkt"):
            write(label, setup, 50.0)
    rows = labels(overview_panels(load_results([RUNS]))[0])
    assert len(rows) == 10
    assert not [row for row in rows if "L_ct" in row]


def test_what_failed_is_there_and_says_so():
    write("baseline", "", 40.0)
    write_failed(RUNS, "ccl", "AI", 0)
    (panel,) = overview_panels(load_results([RUNS]))
    assert labels(panel) == ["baseline", "ccl AI"]
    assert texts(inline(panel)).count("failed") == 1


def test_of_many_rows_ablations_are_shown_where_nothing_else_succeeded():
    for setup in ("A", "I", "AI"):
        for label in ("fitnet", "crd", "pkt", "ccl"):
            write_failed(RUNS, label, setup, 0)
    write("ccl w L_ct", "A", 50.0, table="ablation")
    (panel,) = overview_panels(load_results([RUNS]))
    assert "ccl w L_ct A" in labels(panel)


def test_curves_are_means_and_deviations_over_seeds(study_runs):
    results = load_results([study_runs])
    first, *_ = curve_panels(results)["AI"]
    axes = axes_of(first)
    assert axes.get_xlabel() == "training step"
    drawn = {line.get_color(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn[results.colour("ccl")] == ([10, 20, 30], [25.0, 50.0, 75.0])
    assert [line.get_linestyle() for line in axes.lines if line.get_color() == LIGHT["ink"]] == ["--"]


def test_scores_on_held_out_videos_are_curves_of_their_own(copied):
    for file in copied.glob("*/metrics.jsonl"):
        scored = '{"step": 10, "val_top1": 40.0, "val_loss": 1.5}\n{"step": 20, "val_top1": 60.0, "val_loss": 1.0}\n'
        file.write_text(scored + file.read_text())
    *_, top1, loss = curve_panels(load_results([copied]))["AI"]
    assert (top1.heading, loss.heading) == ("AI: Top-1 on val videos (%)", "AI: Cross-entropy on val videos")
    assert list(axes_of(top1).lines[0].get_ydata()) == [40.0, 60.0]


def test_of_many_classes_those_at_either_end_are_drawn():
    points = {f"c{n}": n - 2500.0 for n in range(5000)}
    (panel,) = class_panels([ClassGain("ccl AI", points)])
    axes = axes_of(panel)
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert (len(shown), shown[0], shown[29], shown[30], shown[-1]) == (60, "c4999", "c4970", "c29", "c0")
    assert axes.get_xlabel() == "60 of 5,000 classes, the best and the worst"
    assert panel.text.startswith("ccl AI: better in 2499 classes, worse in 2500, equal in 1.")


def test_changes_of_classes_are_bars_with_their_numbers():
    gains = [ClassGain("ccl A", {"a": -2.0, "b": 3.5, "c": 0.0})]
    (panel,) = class_panels(gains)
    axes = axes_of(panel)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]
    assert [bar.get_width() for bar in axes.patches] == [3.5, 0.0, -2.0]
    assert {"+3.5", "0", "-2.0", "ccl A minus baseline"} <= set(texts(inline(panel)))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_real_files(study_runs, tmp_path, name):
    results = load_results([study_runs])
    write_figure(results, name, tmp_path / "f.svg")
    write_figure(results, name, tmp_path / "f.PNG")
    write_figure(results, name, tmp_path / "f.pdf")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    root = ET.parse(tmp_path / "f.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    data = (tmp_path / "f.PNG").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    # Two pixels of the PNG stand for one of the SVG.
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == pytest.approx(
        (2 * float(root.get("width")), 2 * float(root.get("height"))), abs=2
    )
    assert len(Image.open(tmp_path / "f.PNG").getcolors(10**7)) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.PNG", "f.pdf", "f.svg"]


def test_other_kinds_of_file_are_refused(study_runs, tmp_path):
    with pytest.raises(UsageError, match="no kind of picture"):
        write_figure(load_results([study_runs]), "curves", tmp_path / "f.jpg")


def test_damaged_lines_of_metrics_cost_only_themselves(copied, tmp_path):
    whole = write_figure_text(copied, tmp_path)
    damaged = (b'{"loss": 1, "ce": 1, "accuracy": 1}', b'{"step": null, "loss": 1, "ce": 1, "accuracy": 1}')
    damaged += (b'{"step": Infinity, "loss": 1, "ce": 1, "accuracy": 1}', b"\xff\xfe\x00", b"[1]", b"null")
    damaged += (b'{"step": 5, "loss": 1%s, "ce": 1%s, "accuracy": 1%s}' % ((b"0" * 400,) * 3),)
    for file in copied.glob("*/metrics.jsonl"):
        file.write_bytes(b"\n".join([*damaged, file.read_bytes()]))
    assert write_figure_text(copied, tmp_path) == whole


def write_figure_text(runs, folder):
    write_figure(load_results([runs]), "curves", folder / "curves.svg")
    return (folder / "curves.svg").read_text()


def test_a_figure_is_matplotlibs_and_a_runs_curve_a_frame(copied):
    drawn = figure("curves", copied)
    assert isinstance(drawn, Figure)
    assert drawn.findobj(Line2D)
    run = next(copied.glob("*/metrics.jsonl")).parent
    first, second = map(json.loads, (run / "metrics.jsonl").read_text().splitlines()[:2])
    assert curves(run)["loss"][first["step"]] == first["loss"]
    assert curves(run)["ce"][second["step"]] == second["ce"]
    with pytest.raises(UsageError, match="no figure 'curve'"):
        figure("curve", copied)
    with pytest.raises(DataError, match="has logged no figures"):
        curves(copied)
