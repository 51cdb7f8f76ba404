"""What a checkpoint holds."""

from __future__ import annotations

import errno

import pytest
import torch

from ccl_cli.errors import SystemSetupError, UsageError
from ccl_cli.training.run import checkpoint
from ccl_cli.training.train import train
from tests.training.runs import recipe


@pytest.mark.parametrize("mark", [None, "ccl-state-1"])
def test_a_checkpoint_of_another_version_is_refused(clips_folder, tmp_path, mark):
    experiment = recipe(clips_folder, method={"fitnet": {}})
    short = experiment.model_copy(update={"train": experiment.train.model_copy(update={"max_steps": 2})})
    run = train(short, output=tmp_path / "run")
    path = checkpoint.newest_state(run / "state")
    state = torch.load(path, weights_only=True)
    assert state.pop("format") == "ccl-state-2"
    torch.save(state | ({"format": mark} if mark else {}), path)
    with pytest.raises(UsageError, match="Another version of ccl wrote the checkpoints"):
        train(experiment, resume=run)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_a_checkpoint_that_the_machine_cannot_read_is_not_taken_for_a_damaged_one(
    tmp_path, monkeypatch, error
):
    for step in 1, 2:
        checkpoint.write_state(tmp_path, step, {"step": step})
    real = checkpoint.read_state

    def failing(path):
        if path.name == "step-000000002.pt":
            raise error
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read_state", failing)
        with pytest.raises(
            SystemSetupError, match=r"step-000000002\.pt' cannot be read: (Input|there is no)"
        ):
            checkpoint.newest_state(tmp_path)
    assert checkpoint.newest_state(tmp_path).name == "step-000000002.pt"
    (tmp_path / "step-000000002.pt").write_bytes(b"cut")
    assert checkpoint.newest_state(tmp_path).name == "step-000000001.pt"
