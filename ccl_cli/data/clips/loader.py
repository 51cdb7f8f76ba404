"""Batches from worker processes: the only module that makes a torch DataLoader and handles its errors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset, IterableDataset

from ccl_cli.data.clips.workers import worker_options
from ccl_cli.errors import CclError, SystemSetupError

T = TypeVar("T")
PATIENCE = 300.0  # seconds without a batch
_POLL_SECONDS = 5.0  # torch detects only after a timeout that a worker of a fork server has ended
_SIGNAL_SECONDS = 0.2  # torch's own message about an ended child comes later, by a signal
_ENDED = re.compile(r"DataLoader worker .*(exited unexpectedly|is killed by signal)")


def read_batches(
    dataset: Dataset[Any],
    workers: int,
    *,
    pin_memory: bool = False,
    modules: Iterable[str] = (),
    advice: str = "",
    patience: float = PATIENCE,
    prefetch: int = 4,
    **options: Any,
) -> Iterator[Any]:
    """Read the batches of a dataset.

    Args:
        dataset: Dataset of samples.
        workers: Number of processes; 0 reads in this process.
        pin_memory: Whether the batches will be copied to a GPU.
        modules: Modules of plugins that the workers need.
        advice: Further hint of the error if a worker ends.
        patience: Seconds without a batch after which the workers count as stuck.
        prefetch: Batches that each worker reads ahead.
        options: Options of torch's ``DataLoader``.

    Raises:
        CclError: raised by the dataset.
        SystemSetupError: a worker has ended, or all are stuck.
    """
    if workers:
        options |= worker_options(modules)
        options |= {"num_workers": workers, "prefetch_factor": prefetch, "timeout": _POLL_SECONDS}
    if isinstance(dataset, IterableDataset):
        dataset = _StreamOfErrors(dataset)
    else:
        dataset = _ErrorsAsValues(dataset)
        if "collate_fn" in options:
            options["collate_fn"] = partial(_collate, collate=options["collate_fn"])
    batches = iter(DataLoader(dataset, pin_memory=pin_memory, **options))
    while True:
        try:
            batch = _next(batches, patience)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not _worker_ended(error):
                raise
            raise _ended_error(error, advice) from error
        if isinstance(batch, CclError):
            raise batch
        yield batch


class _ErrorsAsValues(Dataset[Any]):
    """A dataset that returns errors as samples; torch's loader would turn raised ones into a traceback."""

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


def _collate(samples: Sequence[Any], collate: Callable[[Sequence[Any]], Any]) -> Any:
    """Make a batch, or return the first error among the samples."""
    return next((each for each in samples if isinstance(each, CclError)), None) or collate(samples)


def _next(batches: Iterator[T], patience: float) -> T:
    deadline = time.monotonic() + patience
    while True:
        try:
            return next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise SystemSetupError(
                    f"The processes that read videos are stuck: no batch for {patience:g} s.",
                    "`ccl data check` names videos that hang; on a slow disk, lower --workers.",
                ) from error


def _worker_ended(error: Exception) -> bool:
    """Whether the error means that a worker process has ended, perhaps while sending a batch."""
    if isinstance(error, RuntimeError):
        return bool(_ENDED.search(str(error)))
    return isinstance(error, (ConnectionError, EOFError))


def _ended_error(error: Exception, advice: str) -> SystemSetupError:
    if not isinstance(error, RuntimeError):
        with suppress(RuntimeError):
            time.sleep(_SIGNAL_SECONDS)
    reason = str(error).splitlines()[0] if isinstance(error, RuntimeError) else type(error).__name__
    hint = "If memory ran out, lower --workers; `ccl data check` names videos that crash a decoder"
    return SystemSetupError(
        f"The processes that read videos ended: {reason}", f"{hint}{'; ' if advice else ''}{advice}."
    )
