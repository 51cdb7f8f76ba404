from __future__ import annotations

from ccl_cli.report.figures.panel import inline
from ccl_cli.report.figures.tsne import tsne_panels
from ccl_cli.report.records.results import load_results
from tests.report.plots import titles


def test_a_point_of_the_plane_tells_its_class_and_video(study_runs):
    plane, _ = tsne_panels(load_results([study_runs]))
    tooltips = titles(inline(plane))[1:]
    assert len(tooltips) == len({*tooltips}) == 6 + 12
    assert "right: test/right/0 (test)" in tooltips
    assert "down: train/down/5 (train)" in tooltips
