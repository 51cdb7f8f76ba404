"""Results: means over seeds, the best method, the baseline, and remarks on what is not comparable."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ccl_cli.config.recipe import ASIDE
from ccl_cli.errors import UsageError
from ccl_cli.report.records import paper
from ccl_cli.report.records.run import METRICS, Run, abbreviations
from ccl_cli.report.records.runs import Runs, read_runs
from ccl_cli.utils.json_text import flat
from ccl_cli.utils.sentences import listed
from ccl_cli.utils.text import one_line

BASELINE = "baseline"
# Rows of a table are comparable if their recipes differ only in these settings.
_COMPARABLE = ("data", "teachers", "method", "train.seed", *ASIDE, "max_unreadable", "eval.batch_size")


@dataclass(frozen=True, eq=False)
class Cell:
    """One metric of one method in one setup: one recipe with several seeds.

    Attributes:
        runs: Evaluated runs, in the order of their seeds.
        failed: Runs that failed before their evaluation.
        values: Values in percent by seed.
        mean: Mean over seeds; None without values.
        sd: Sample standard deviation over seeds (n - 1); None for fewer than two values.
    """

    data: str
    method: str
    setup: str
    metric: str
    runs: tuple[Run, ...]
    failed: tuple[Run, ...]
    values: Mapping[int, float]
    mean: float | None
    sd: float | None

    @property
    def label(self) -> str:
        """Method and setup, for sentences."""
        return f"{self.method} {self.setup}".rstrip()

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        printed: Whether the column shows the values that the paper printed.
    """

    data: str
    setup: str
    metric: str
    printed: bool = False


@dataclass(frozen=True, eq=False)
class Results:
    """Cells of all runs, and the cells that the report is about.

    Attributes:
        runs: The runs.
        cells: Cells by (data set, method, setup, metric), in the paper's order.
        notes: Remarks for the reader.
        split: Evaluated split.
    """

    runs: Runs
    cells: Mapping[tuple[str, str, str, str], Cell]
    notes: tuple[str, ...]
    split: str

    @cached_property
    def datasets(self) -> list[str]:
        """Data sets; those of the paper first."""
        return sorted({cell.data for cell in self.cells.values()}, key=paper.place)

    @cached_property
    def methods(self) -> list[str]:
        """Methods, in the paper's order."""
        return list(dict.fromkeys(sorted((cell.method for cell in self.cells.values()), key=_method_place)))

    @cached_property
    def ablations(self) -> frozenset[str]:
        """Methods of the ablation table."""
        return frozenset(run.method for run in self.runs.all if run.ablation)

    @cached_property
    def modalities(self) -> dict[str, str]:
        """Modalities by the letters of the setups."""
        names = abbreviations(name for run in self.runs.all for name in run.modalities)
        return {letters: name for name, letters in names.items()}

    def letters(self, setups: Iterable[str]) -> list[str]:
        """Explain the letters of these setups, for example ``A: audio``."""
        used = "".join(setups)
        return [f"{letters}: {name}" for letters, name in sorted(self.modalities.items()) if letters in used]

    @cached_property
    def data(self) -> str:
        """The data set with the most evaluated runs."""
        counts = Counter(data for run in self.runs.evaluated for data in run.datasets)
        return max(self.datasets, key=counts.__getitem__)

    @cached_property
    def metric(self) -> str:
        """The metric that ranks the methods."""
        available = {cell.metric for cell in self.cells.values() if cell.data == self.data and cell.runs}
        return next(metric for metric in METRICS if metric in available)

    @cached_property
    def best(self) -> Cell:
        """The cell with the highest mean among methods with teachers, without ablations; else among all."""
        cells = [cell for cell in self.ranked() if cell.mean is not None]
        taught = [cell for cell in cells if cell.method not in {BASELINE, *self.ablations}]
        return max(taught or cells, key=lambda cell: cell.mean or 0.0)

    @cached_property
    def baseline(self) -> Cell | None:
        """The student without teachers; None if it is missing, failed or itself the best."""
        cell = self.find(self.data, BASELINE, "", self.metric)
        return cell if cell and cell.runs and cell is not self.best else None

    @property
    def best_run(self) -> Run:
        """The run whose videos are shown: the first seed of the best method."""
        return self.best.runs[0]

    @property
    def setups(self) -> list[str]:
        """Setups of the data set, fewest teachers first."""
        return _with_teachers(cell.setup for cell in self.ranked() if cell.runs)

    @property
    def data_runs(self) -> list[Run]:
        """Runs of the data set, in the order of the tables."""
        return [run for cell in self.ranked() for run in cell.runs]

    def find(self, data: str, method: str, setup: str, metric: str) -> Cell | None:
        """Find a cell; a method without teachers has the same cell in every setup."""
        return self.cells.get((data, method, setup, metric)) or self.cells.get((data, method, "", metric))

    def ranked(self, setup: str | None = None) -> list[Cell]:
        """Cells of the main data set and metric; with ``setup``, of that setup and without teachers."""
        return [
            cell
            for cell in self.cells.values()
            if (cell.data, cell.metric) == (self.data, self.metric)
            and (setup is None or cell.setup in (setup, ""))
        ]


def columns_of(results: Results, methods: Sequence[str], metrics: Sequence[str]) -> list[Column]:
    """Columns, one for each data set, setup and metric, in which one of the methods has a cell."""
    columns = []
    for data in results.datasets:
        keys = {
            (cell.setup, cell.metric)
            for cell in results.cells.values()
            if cell.data == data and cell.method in methods and cell.metric in metrics
        }
        setups = _with_teachers(setup for setup, _ in keys)
        present = [metric for metric in metrics if metric in {metric for _, metric in keys}]
        columns += [Column(data, setup, metric) for setup in setups for metric in present]
    return columns


def load_results(paths: Sequence[Path] = (), split: str = "test") -> Results:
    """Read and summarise runs; raises the errors of :func:`read_runs` and :func:`summarise`."""
    return summarise(read_runs(paths, split), split)


def summarise(runs: Runs, split: str = "test") -> Results:
    """Average runs that differ only in their seed.

    Raises:
        UsageError: runs with the same label have different recipes.
    """
    grouped: dict[tuple[str, str, str, str], list[Run]] = defaultdict(list)
    for run in sorted(runs.all, key=lambda run: run.seed):
        for data, metric in run.metrics:
            grouped[data, run.method, run.setup, metric].append(run)
    cells = sorted((_cell(key, same) for key, same in grouped.items()), key=_cell_place)
    notes = [*runs.notes, *_failures(runs.failed)]
    for data in dict.fromkeys(cell.data for cell in cells):
        notes += _differences(data, [run for run in runs.evaluated if data in run.datasets])
    by_key = {(cell.data, cell.method, cell.setup, cell.metric): cell for cell in cells}
    return Results(runs, by_key, tuple(map(one_line, notes)), split)


def setup_place(setup: str) -> tuple[int, str]:
    """Sort key of setups: fewest teachers first."""
    return len(setup), setup


def _with_teachers(setups: Iterable[str]) -> list[str]:
    """Distinct setups in order; the one without teachers only if there is no other."""
    distinct = set(setups)
    return sorted(distinct - {""} or distinct, key=setup_place)


def _method_place(method: str) -> tuple[int, str]:
    order = [*paper.METHODS, *paper.ABLATIONS]
    return (order.index(method) if method in order else len(order), method)


def _cell_place(cell: Cell) -> tuple[object, ...]:
    metric = list(METRICS).index(cell.metric)
    return paper.place(cell.data), _method_place(cell.method), setup_place(cell.setup), metric


def _cell(key: tuple[str, str, str, str], runs: Sequence[Run]) -> Cell:
    data, *_, metric = key
    evaluated = tuple(run for run in runs if not run.error)
    _check_one_recipe(data, evaluated)
    values = {run.seed: run.metrics[data, metric] for run in evaluated}
    return Cell(
        *key,
        runs=evaluated,
        failed=tuple(run for run in runs if run.error),
        values=values,
        mean=statistics.fmean(values.values()) if values else None,
        sd=statistics.stdev(values.values()) if len(values) > 1 else None,
    )


def _failures(failed: Sequence[Run]) -> Iterator[str]:
    for reason, runs in _grouped(failed, lambda run: run.error or "").items():
        names = [f"{run.label} seed {run.seed} ({run.folder})" for run in runs]
        yield f"Failed ({reason.rstrip('.')}): {listed(names)}."


def _check_one_recipe(data: str, runs: Sequence[Run]) -> None:
    recipes = _grouped(runs, lambda run: run.settings)
    if len(recipes) > 1:
        differences = _differing_settings(recipes.values(), ("train.seed", *ASIDE))
        raise UsageError(
            f"'{runs[0].label}' on {data} comes from {len(recipes)} different recipes, which are not "
            f"averaged: {'; '.join(differences)}.",
            f"Name the runs that belong together, for example `ccl report table {runs[0].folder} ...`.",
        )


def _differences(data: str, runs: Sequence[Run]) -> Iterator[str]:
    """Describe differences that make the rows of a data set hard to compare."""
    videos = _grouped(runs, lambda run: run.manifests[data][:8])
    if len(videos) > 1:
        parts = (
            f"{manifest}: {listed([run.folder for run in same], 4)}" for manifest, same in videos.items()
        )
        yield f"The videos of {data} were not the same in all runs: {'; '.join(parts)}."
    settings = _grouped(runs, lambda run: json.dumps(_settings(run, _COMPARABLE), sort_keys=True))
    if len(settings) > 1:
        differing = _differing_settings(settings.values(), _COMPARABLE)
        yield f"Rows of {data} differ in more than their method: {'; '.join(differing)}."


def _grouped(runs: Iterable[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return groups


def _differing_settings(groups: Iterable[Sequence[Run]], ignored: Sequence[str]) -> list[str]:
    """Describe each group of runs with one recipe: its differing settings and its folders."""
    by_recipe = [(_settings(runs[0], ignored), runs) for runs in groups]
    keys = dict.fromkeys(key for settings, _ in by_recipe for key in settings)
    differing = [key for key in keys if len({json.dumps(settings.get(key)) for settings, _ in by_recipe}) > 1]
    parts = []
    for settings, runs in by_recipe:
        values = {key: settings.get(key) for key in differing[:4]}
        text = ", ".join(f"{key}={'default' if value is None else value}" for key, value in values.items())
        parts.append(f"{text} in {listed([run.folder for run in runs], 4)}")
    return parts


def _settings(run: Run, ignored: Sequence[str]) -> dict[str, object]:
    """Values of a run's recipe by dotted key, without the ignored sections."""
    return flat(run.recipe.without(ignored)) if run.recipe else {}
