"""Batches from other processes: their errors, and the error for a process that dies or hangs."""

from __future__ import annotations

import os
import signal
import time

import pytest
from torch.utils.data import Dataset, IterableDataset

from ccl_cli.data.clips import loader
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.clips.workers import SERVER
from ccl_cli.errors import DataError, SystemSetupError


class Numbers(Dataset):
    """Its third batch is an error, or does something to the process that reads it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2 and self.what == "error":
            raise DataError("No video can be read.", "Look.")
        if index == 2 and self.what == "bug":
            raise ValueError("a bug")
        if index == 2 and self.what == "hang":
            time.sleep(600)
        if index == 2 and self.what == "die":  # as the kernel ends it when memory runs out
            os.kill(os.getpid(), signal.SIGKILL)
        return index


class Stream(IterableDataset):
    def __iter__(self):
        return map(Numbers("error").__getitem__, range(4))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dataset", [Numbers("error"), Stream()])
def test_an_error_of_ours_arrives_as_it_was_raised(dataset, workers):
    batches = read_batches(dataset, workers)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(DataError, match="No video can be read") as error:
        next(batches)
    assert error.value.hint == "Look."


def test_other_errors_pass():
    with pytest.raises(ValueError, match="a bug"):
        list(read_batches(Numbers("bug"), 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "sentence", "hint"),
    [
        ("die", "processes that read videos ended", "crash a decoder; go on"),
        ("hang", "are stuck: no batch for 2 s", "names videos that hang"),
    ],
)
def test_a_process_that_dies_or_hangs_ends_the_run_with_a_sentence(monkeypatch, what, sentence, hint):
    monkeypatch.setattr(loader, "_POLL_SECONDS", 1.0)
    # The first batches may take long: the process that reads them must start.
    patience = 2.0 if what == "hang" else 300.0
    batches = read_batches(Numbers(what), 1, patience=patience, modules=[__name__], advice="go on")
    with pytest.raises(SystemSetupError, match=sentence) as caught:
        list(batches)
    assert hint in caught.value.hint


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
