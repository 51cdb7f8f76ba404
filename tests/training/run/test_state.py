"""What a checkpoint holds."""

from __future__ import annotations

import pytest
import torch

from ccl_cli.errors import UsageError
from ccl_cli.training.run.checkpoint import newest_state
from ccl_cli.training.train import train
from tests.training.runs import recipe


@pytest.mark.parametrize("mark", [None, "ccl-state-1"])
def test_a_checkpoint_of_another_version_is_refused(clips_folder, tmp_path, mark):
    experiment = recipe(clips_folder, method={"fitnet": {}})
    short = experiment.model_copy(update={"train": experiment.train.model_copy(update={"max_steps": 2})})
    run = train(short, output=tmp_path / "run")
    path = newest_state(run / "state")
    state = torch.load(path, weights_only=True)
    assert state.pop("format") == "ccl-state-2"
    torch.save(state | ({"format": mark} if mark else {}), path)
    with pytest.raises(UsageError, match="Another version of ccl wrote the checkpoints"):
        train(experiment, resume=run)
