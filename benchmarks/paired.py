"""What the studies share: runs of one seed compared in pairs, and two runs at a time."""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

from ccl_cli.report.records.comparison import t_interval

T = TypeVar("T")
Values = Mapping[Hashable, float]  # by seed, or by world and seed


def mean(values: Values) -> float:
    """Minus infinity without any."""
    return statistics.fmean(values.values()) if values else -math.inf


def spread(values: Values) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    sd = f" ± {statistics.stdev(values.values()):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{sd}"


def gains(values: Values, others: Values) -> list[float]:
    """Points above the others, pair by pair."""
    return [values[key] - others[key] for key in sorted(values.keys() & others.keys())]


def difference(values: Values, others: Values) -> str:
    """Mean gain and its 95 % interval, Student's t; "" of less than two pairs and of a row beside itself."""
    pairs = gains(values, others)
    if len(pairs) < 2 or not any(pairs):
        return ""
    low, high = t_interval(pairs) or (math.nan, math.nan)
    return f"{statistics.fmean(pairs):+.1f} ({low:+.1f} to {high:+.1f})"


def two_at_a_time(finish: Callable[[T], object], runs: Sequence[T]) -> None:
    """Finish each run in one of two processes with one thread each, in this order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, (run, _) in enumerate(zip(runs, pool.map(finish, runs), strict=True), 1):
            print(f"{number}/{len(runs)} {run}", flush=True)
