"""Batches from worker processes: the only module that makes a torch DataLoader and handles its errors."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset, IterableDataset

from ccl_cli.data.clips.workers import worker_options
from ccl_cli.errors import CclError, SystemSetupError

T = TypeVar("T")
PATIENCE = 300.0  # seconds without a batch
_POLL_SECONDS = 5.0  # torch detects only after a timeout that a worker of a fork server has ended
_ENDED = re.compile(r"DataLoader worker .*(exited unexpectedly|is killed by signal)")


def read_batches(
    dataset: Dataset[T],
    workers: int,
    *,
    sampler: Iterable[Any] | None = None,
    pin_memory: bool = False,
    modules: Iterable[str] = (),
    advice: str = "",
    patience: float = PATIENCE,
    prefetch: int = 4,
) -> Iterator[T]:
    """Read the batches of a dataset.

    Args:
        dataset: Dataset of batches.
        workers: Number of processes; 0 reads in this process.
        sampler: Indices of the batches; None: from 0 on.
        pin_memory: Whether the batches will be copied to a GPU.
        modules: Modules of plugins that the workers need.
        advice: Further hint of the error if a worker ends.
        patience: Seconds without a batch after which the workers count as stuck.
        prefetch: Batches that each worker reads ahead.

    Raises:
        CclError: raised by the dataset.
        SystemSetupError: a worker has ended, or all are stuck.
    """
    options: dict[str, Any] = {}
    if workers:
        options = {"num_workers": workers, "prefetch_factor": prefetch, "timeout": _POLL_SECONDS}
        options |= worker_options(modules)
    safe = _StreamOfErrors(dataset) if isinstance(dataset, IterableDataset) else _ErrorsAsValues(dataset)
    batches = iter(DataLoader(safe, batch_size=None, sampler=sampler, pin_memory=pin_memory, **options))
    while (batch := _next(batches, patience, advice)) is not None:
        if isinstance(batch, CclError):
            raise batch
        yield batch


def _next(batches: Iterator[Any], patience: float, advice: str) -> Any:
    """The next batch; None after the last one."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return next(batches, None)
        except (ConnectionError, EOFError) as error:  # a worker has ended while it sent a batch
            raise _ended(type(error).__name__, advice) from error
        except RuntimeError as error:
            if _ENDED.search(str(error)):
                raise _ended(str(error).splitlines()[0], advice) from error
            if "timed out" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise SystemSetupError(
                    f"The processes that read videos are stuck: no batch for {patience:g} s.",
                    "`ccl data check` names videos that hang; on a slow disk, lower --workers.",
                ) from error


def _ended(reason: str, advice: str) -> SystemSetupError:
    hint = "If memory ran out, lower --workers; `ccl data check` names videos that crash a decoder"
    return SystemSetupError(
        f"The processes that read videos ended: {reason}", f"{hint}{'; ' if advice else ''}{advice}."
    )


class _ErrorsAsValues(Dataset[Any]):
    """A dataset that returns errors as batches; torch's loader would turn raised ones into a traceback."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except CclError as error:
            return error


class _StreamOfErrors(IterableDataset[Any]):
    """A stream that yields its first error and ends."""

    def __init__(self, dataset: IterableDataset[Any]) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.dataset
        except CclError as error:
            yield error
