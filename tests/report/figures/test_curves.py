from __future__ import annotations

from ccl_cli.report.figures.curves import curve_panels
from ccl_cli.report.figures.registry import write_figure
from ccl_cli.report.figures.style import LIGHT, method_colour
from ccl_cli.report.records.results import load_results
from tests.report.plots import axes_of


def test_curves_are_means_and_deviations_over_seeds(study_runs):
    results = load_results([study_runs])
    first, *_ = curve_panels(results)["AI"]
    axes = axes_of(first)
    assert axes.get_xlabel() == "training step"
    drawn = {line.get_color(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn[method_colour(results, "ccl")] == ([10, 20, 30], [25.0, 50.0, 75.0])
    assert [line.get_linestyle() for line in axes.lines if line.get_color() == LIGHT["ink"]] == ["--"]


def test_scores_on_held_out_videos_are_curves_of_their_own(copied):
    for file in copied.glob("*/metrics.jsonl"):
        scored = '{"step": 10, "val_top1": 40.0, "val_loss": 1.5}\n{"step": 20, "val_top1": 60.0, "val_loss": 1.0}\n'
        file.write_text(scored + file.read_text())
    *_, top1, loss = curve_panels(load_results([copied]))["AI"]
    assert (top1.heading, loss.heading) == ("AI: Top-1 on val videos (%)", "AI: Cross-entropy on val videos")
    assert list(axes_of(top1).lines[0].get_ydata()) == [40.0, 60.0]


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
