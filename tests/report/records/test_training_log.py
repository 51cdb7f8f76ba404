from __future__ import annotations

import json

import pytest

from ccl_cli.errors import DataError
from ccl_cli.report.records.training_log import curves


def test_a_log_is_a_frame_with_a_row_per_step(study_runs):
    run = next(study_runs.glob("*/metrics.jsonl")).parent
    first, second = map(json.loads, (run / "metrics.jsonl").read_text().splitlines()[:2])
    assert curves(run)["loss"][first["step"]] == first["loss"]
    assert curves(run)["ce"][second["step"]] == second["ce"]
    with pytest.raises(DataError, match="has logged no metrics"):
        curves(study_runs)
