from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import TSNE

from ccl_cli.errors import SystemSetupError
from ccl_cli.report.figures.panel import inline
from ccl_cli.report.figures.tsne import tsne_panels
from ccl_cli.report.figures.tsne_process import tsne_points
from ccl_cli.report.records.results import load_results
from tests.report.plots import titles


def test_a_point_of_the_plane_tells_its_class_and_video(study_runs):
    plane, _ = tsne_panels(load_results([study_runs]))
    tooltips = titles(inline(plane))[1:]
    assert len(tooltips) == len({*tooltips}) == 6 + 12
    assert "right: test/right/0 (test)" in tooltips
    assert "down: train/down/5 (train)" in tooltips


def test_the_process_computes_what_scikit_learn_computes_here():
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    here = TSNE(perplexity=19 / 3, init="pca", random_state=0).fit_transform(features)
    np.testing.assert_array_equal(tsne_points(features), here)
    with pytest.raises(SystemSetupError, match="NaN"):
        tsne_points(np.full_like(features, np.nan))
