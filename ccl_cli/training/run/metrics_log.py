"""Metrics during training: means, speed, lines of ``metrics.jsonl``, and progress lines."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ccl_cli.data.manifest import UNLABELLED
from ccl_cli.utils.distributed import is_main, total, world_size

T = TypeVar("T")
_NOT_TERMS = ("accuracy", "labelled", "clips_per_s", "data_wait", "skipped")


class Meter:
    """Means since the last logged line, kept on the device until they are read.

    They are part of a checkpoint, so that a resumed run writes the same lines as an uninterrupted one.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight = 0.0

    def add(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Add the values (scalars) of one micro-batch, which is ``weight`` of a step."""
        for name, value in values.items():
            value = weight * value.float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.weight += weight

    def read(self) -> dict[str, float]:
        """Return means over steps and processes, and reset. The accuracy is a mean over labelled rows."""
        means = {name: value.item() / self.weight for name, value in self._over_processes().items()}
        if labelled := means.get("labelled"):
            means["accuracy"] /= labelled
        self.sums, self.weight = {}, 0.0
        return means

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint, equal on all processes."""
        return {"weight": self.weight, "sums": self._over_processes()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore :meth:`state_dict`."""
        self.weight = state["weight"]
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}

    def _over_processes(self) -> dict[str, Tensor]:
        if not self.sums:
            return {}
        means = total(torch.stack(list(self.sums.values()))) / world_size()
        return dict(zip(self.sums, means.cpu(), strict=True))


def accuracy(logits: Tensor, labels: Tensor, *, partly: bool) -> dict[str, Tensor]:
    """``accuracy``, the share of correct rows. A row without a label is never correct.

    If only some videos have a label, adds ``labelled``, the share of labelled rows, by which a :class:`Meter`
    divides the accuracy. Shapes: logits: [B, K]. labels: [B] int64; -1 without a label.
    """
    shares = {"accuracy": (logits.argmax(dim=1) == labels).float().mean()}
    if partly:
        shares["labelled"] = (labels != UNLABELLED).float().mean()
    return shares


class Clock:
    """Measures speed, and the time of waiting for data."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start a new interval."""
        self.begin, self.waited, self.clips = time.perf_counter(), 0.0, 0

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Pass items through, and measure the time of waiting for each."""
        begin = time.perf_counter()
        for item in items:  # the first one includes the start of the workers
            self.waited += time.perf_counter() - begin
            yield item
            begin = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return ``clips_per_s`` of all processes and ``data_wait``, the share of waiting time; restart."""
        seconds = time.perf_counter() - self.begin
        figures = {
            "clips_per_s": round(self.clips * world_size() / seconds, 3),
            "data_wait": round(self.waited / seconds, 4),
        }
        self.restart()
        return figures


@contextmanager
def jsonl_writer(path: Path) -> Iterator[Any]:
    """Yield a function that appends an object as a line. Only the main process writes."""
    if not is_main():
        yield lambda entry: None
        return
    with path.open("a", encoding="utf-8") as file:

        def write(entry: Mapping[str, Any]) -> None:
            finite = {key: value if math.isfinite(value) else None for key, value in entry.items()}
            file.write(json.dumps(finite) + "\n")
            file.flush()

        yield write


def progress_lines(figures: Mapping[str, float], held_out: str = "") -> list[str]:
    """Progress lines on a terminal: loss and scores; the terms (``TERM/TEACHER``) of each teacher; speed.

    ``held_out`` has the latest scores on held-out videos.
    """
    first: list[str] = []
    by_teacher: dict[str, list[str]] = {}
    for name in figures:
        if name in _NOT_TERMS:
            continue
        term, _, teacher = name.partition("/")
        line = by_teacher.setdefault(teacher, [teacher]) if teacher else first
        line.append(f"{term} {figures[name]:.3f}")
    first += [f"acc {figures['accuracy']:.0%}"] if "accuracy" in figures else []
    last = [f"{figures['clips_per_s']:.1f} clips/s", f"data wait {figures['data_wait']:.0%}"]
    last += [f"skipped {figures['skipped']:.0f}"] if figures.get("skipped") else []
    lines = [[*first, held_out.strip()], *by_teacher.values(), last]
    return ["  ".join(filter(None, line)) for line in lines]
