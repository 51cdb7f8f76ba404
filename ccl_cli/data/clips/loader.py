"""Batches from processes that decode: the only place that makes a data loader and reports its errors."""

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
_POLL_SECONDS = 5.0  # torch notices only after a timeout that a worker of a fork server has ended
_SIGNAL_SECONDS = 0.2  # what torch says of its own child comes later, by a signal
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
    """The batches of a dataset.

    Args:
        dataset: What is read.
        workers: Number of processes; 0 decodes in this one.
        pin_memory: Whether the batches are meant for a GPU.
        modules: What the processes need, besides our own.
        advice: A further step for the error of a process that has ended.
        patience: Seconds without a batch after which the processes count as stuck.
        prefetch: Batches that each process reads ahead.
        options: Of torch's ``DataLoader``.

    Raises:
        CclError: what the dataset raises.
        SystemSetupError: a process has ended, or is stuck.
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
            if not _is_loss(error):
                raise
            raise _loss(error, advice) from error
        if isinstance(batch, CclError):
            raise batch
        yield batch


class _ErrorsAsValues(Dataset[Any]):
    """A dataset whose errors are samples: a loader would turn a raised one into a traceback."""

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
    """The same of a stream, which ends with its first error."""

    def __init__(self, dataset: IterableDataset[Any]) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.dataset
        except CclError as error:
            yield error


def _collate(samples: Sequence[Any], collate: Callable[[Sequence[Any]], Any]) -> Any:
    """A batch, or the first error among its samples."""
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


def _is_loss(error: Exception) -> bool:
    """Whether a process of a loader has ended, perhaps while it handed over a batch."""
    if isinstance(error, RuntimeError):
        return bool(_ENDED.search(str(error)))
    return isinstance(error, (ConnectionError, EOFError))


def _loss(error: Exception, advice: str) -> SystemSetupError:
    if not isinstance(error, RuntimeError):
        with suppress(RuntimeError):
            time.sleep(_SIGNAL_SECONDS)
    reason = str(error).splitlines()[0] if isinstance(error, RuntimeError) else type(error).__name__
    hint = "If memory ran out, lower --workers; `ccl data check` names videos that crash a decoder"
    return SystemSetupError(
        f"The processes that read videos ended: {reason}", f"{hint}{'; ' if advice else ''}{advice}."
    )
