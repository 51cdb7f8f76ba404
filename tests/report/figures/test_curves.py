from __future__ import annotations

import pytest

import ccl_cli
from ccl_cli.errors import DataError
from ccl_cli.report.figures.curves import curve_panels
from ccl_cli.report.figures.style import LIGHT, method_colour
from ccl_cli.report.records.results import load_results
from tests.report.plots import axes_of

DAMAGED = (
    *(b'{"loss": 1, "ce": 1}', b'{"step": null, "loss": 1}', b'{"step": Infinity, "loss": 1}'),
    *(b"\xff\xfe\x00", b"[1]", b"null", b'{"step": 5, "loss": 1%s}' % (b"0" * 400)),
)


def test_curves_are_means_and_deviations_over_seeds(study_runs):
    results = load_results([study_runs])
    axes = axes_of(curve_panels(results)["AI"][0])
    assert axes.get_xlabel() == "training step"
    drawn = {line.get_color(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn[method_colour(results, "ccl")] == ([10, 20, 30], [25.0, 50.0, 75.0])
    assert [line.get_linestyle() for line in axes.lines if line.get_color() == LIGHT["ink"]] == ["--"]


def test_scores_on_held_out_videos_are_curves_and_damaged_lines_cost_only_themselves(copied):
    texts = [panel.text for panel in curve_panels(load_results([copied]))["AI"]]
    for file in copied.glob("*/metrics.jsonl"):
        scores = b'{"step": 10, "val_top1": 40.0, "val_loss": 1.5}', b'{"step": 20, "val_top1": 60.0}'
        file.write_bytes(b"\n".join([*scores, *DAMAGED, file.read_bytes()]))
    *rest, top1, loss = curve_panels(load_results([copied]))["AI"]
    assert [panel.text for panel in rest] == texts
    assert (top1.heading, loss.heading) == ("AI: Top-1 on val videos (%)", "AI: Cross-entropy on val videos")
    assert list(axes_of(top1).lines[0].get_ydata()) == [40.0, 60.0]


def test_a_log_is_a_frame_with_a_row_per_step(study_runs):
    frame = ccl_cli.curves(next(study_runs.glob("*/metrics.jsonl")).parent)
    assert frame["loss"].to_dict() == {10: 10.0, 20: 5.0, 30: pytest.approx(100 / 30)}
    with pytest.raises(DataError, match="has logged no metrics"):
        ccl_cli.curves(study_runs)
