from __future__ import annotations

import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from ccl_cli.data.workers import naming_lost_workers, worker_options
from ccl_cli.errors import EnvironmentError_


class Deadly(Dataset):
    """Its third sample ends the process that reads it, as the kernel does when memory runs out."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_reading_process_that_is_killed_ends_with_a_sentence():
    loader = DataLoader(Deadly(), batch_size=1, **worker_options(1, ["tests.data.test_workers"]))
    with (
        pytest.raises(EnvironmentError_, match="processes that read videos ended") as caught,
        naming_lost_workers("go on"),
    ):
        list(loader)
    assert caught.value.hint == "If memory ran out, lower --workers; go on."


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), naming_lost_workers():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
