from __future__ import annotations

import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from ccl_cli.data.clips.workers import SERVER, naming_lost_workers, worker_options
from ccl_cli.errors import EnvironmentError_


class Deadly(Dataset):
    """Its third sample ends the process that reads it, as the kernel does when memory runs out."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


# Of its own child torch hears at once; of one that a server has forked it asks after seconds.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 1, "multiprocessing_context": "fork"},
        pytest.param(worker_options(1, ["tests.data.clips.test_workers"]), marks=pytest.mark.slow),
    ],
    ids=["own", "server's"],
)
def test_a_reading_process_that_is_killed_ends_with_a_sentence(options):
    loader = DataLoader(Deadly(), batch_size=1, **options)
    with (
        pytest.raises(EnvironmentError_, match="processes that read videos ended") as caught,
        naming_lost_workers("go on"),
    ):
        list(loader)
    assert caught.value.hint == "If memory ran out, lower --workers; go on."


@pytest.mark.parametrize(
    "said", ["mat1 and mat2 shapes cannot be multiplied", "Caught ValueError in DataLoader worker process 0."]
)
def test_other_errors_pass(said):
    with pytest.raises(RuntimeError, match=said), naming_lost_workers():
        raise RuntimeError(said)


def deaf(listens):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listens.send(None)
    signal.pause()


def test_a_process_that_is_left_when_python_exits_is_not_waited_for():
    """Python ends it with ``terminate``, to whose signal it is deaf."""
    here, there = SERVER.Pipe()
    process = SERVER.Process(target=deaf, args=(there,), daemon=True)
    process.start()
    here.recv()
    process.terminate()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
