"""Results: means over seeds, the best method, the baseline, and remarks on what is not comparable."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ccl_cli.config.recipe import ASIDE, Recipe
from ccl_cli.errors import UsageError
from ccl_cli.report.records import paper
from ccl_cli.report.records.run import METRICS, Run, abbreviations
from ccl_cli.report.records.runs import Runs, read_runs
from ccl_cli.utils.json_text import flat
from ccl_cli.utils.sentences import listed
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from pandas import DataFrame

BASELINE = "baseline"
# Rows of a table are comparable if their recipes differ only in these settings.
_METHOD_SETTINGS = ("data", "teachers", "method", "train.seed")
_HARMLESS = (*ASIDE, "max_unreadable", "eval.batch_size")


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
        return frozenset(run.method for run in (*self.runs.evaluated, *self.runs.failed) if run.ablation)

    @cached_property
    def modalities(self) -> dict[str, str]:
        """Modalities by the letters of the setups."""
        runs = (*self.runs.evaluated, *self.runs.failed)
        names = abbreviations(name for run in runs for name in run.modalities)
        return {letters: name for name, letters in names.items()}

    @cached_property
    def data(self) -> str:
        """The data set with the most evaluated runs."""
        evaluated = self.runs.frame[self.runs.frame["error"] == ""]
        counts = evaluated.groupby("data")["folder"].nunique().to_dict()
        return max(self.datasets, key=lambda data: int(counts.get(data, 0)))

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
        setups = {cell.setup for cell in self.ranked() if cell.runs}
        return sorted(setups - {""} or setups, key=setup_place)

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
        cells = [
            cell
            for cell in results.cells.values()
            if cell.data == data and cell.method in methods and cell.metric in metrics
        ]
        setups = {cell.setup for cell in cells}
        present = [metric for metric in metrics if any(cell.metric == metric for cell in cells)]
        ordered = sorted(setups - {""} or setups, key=setup_place)
        columns += [Column(data, setup, metric) for setup in ordered for metric in present]
    return columns


def load_results(paths: Sequence[Path] = (), split: str = "test") -> Results:
    """Read and summarise runs; raises the errors of :func:`read_runs` and :func:`summarise`."""
    return summarise(read_runs(paths, split), split)


def summarise(runs: Runs, split: str = "test") -> Results:
    """Average runs that differ only in their seed.

    Raises:
        UsageError: runs with the same label have different recipes.
    """
    by_folder = {str(run.folder): run for run in (*runs.evaluated, *runs.failed)}
    groups = runs.frame.groupby(["data", "method", "setup", "metric"], sort=False)
    cells = [_cell(key, group.sort_values("seed", kind="stable"), by_folder) for key, group in groups]
    cells.sort(key=_cell_place)
    failures = runs.frame[runs.frame["error"] != ""].drop_duplicates("folder")
    evaluations = runs.frame[runs.frame["error"] == ""].drop_duplicates(["data", "folder"])
    for (data, _, _), group in evaluations.groupby(["data", "method", "setup"], sort=False):
        _check_one_recipe(data, [by_folder[folder] for folder in group.sort_values("seed")["folder"]])
    notes = [*runs.notes, *_failures(failures, by_folder)]
    for data, group in evaluations.groupby("data"):
        notes += _differences(data, group, by_folder)
    by_key = {(cell.data, cell.method, cell.setup, cell.metric): cell for cell in cells}
    return Results(runs, by_key, tuple(map(one_line, notes)), split)


def setup_place(setup: str) -> tuple[int, str]:
    """Sort key of setups: fewest teachers first."""
    return len(setup), setup


def _method_place(method: str) -> tuple[int, str]:
    order = [*paper.METHODS, *paper.ABLATIONS]
    return (order.index(method) if method in order else len(order), method)


def _cell_place(cell: Cell) -> tuple[object, ...]:
    order = list(METRICS)
    return (
        paper.place(cell.data),
        _method_place(cell.method),
        setup_place(cell.setup),
        order.index(cell.metric),
    )


def _cell(key: tuple[str, str, str, str], group: DataFrame, by_folder: Mapping[str, Run]) -> Cell:
    evaluated, failed = group[group["error"] == ""], group[group["error"] != ""]
    values = evaluated["value"]
    return Cell(
        *key,
        runs=tuple(by_folder[folder] for folder in evaluated["folder"]),
        failed=tuple(by_folder[folder] for folder in failed["folder"]),
        values=dict(zip(evaluated["seed"].tolist(), values.tolist(), strict=True)),
        mean=float(values.mean()) if len(values) else None,
        sd=float(values.std()) if len(values) > 1 else None,
    )


def _failures(failures: DataFrame, by_folder: Mapping[str, Run]) -> Iterator[str]:
    for reason, folders in failures.groupby("error", sort=False)["folder"]:
        runs = [by_folder[folder] for folder in folders]
        names = [f"{run.label} seed {run.seed} ({run.folder})" for run in runs]
        yield f"Failed ({reason.rstrip('.')}): {listed(names)}."


def _check_one_recipe(data: str, runs: Sequence[Run]) -> None:
    recipes: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        recipes[run.settings].append(run)
    if len(recipes) > 1:
        differences = _differing_settings(recipes.values(), ("train.seed", *ASIDE))
        raise UsageError(
            f"'{runs[0].label}' on {data} comes from {len(recipes)} different recipes, which are not "
            f"averaged: {'; '.join(differences)}.",
            f"Name the runs that belong together, for example `ccl report table {runs[0].folder} ...`.",
        )


def _differences(data: str, evaluations: DataFrame, by_folder: Mapping[str, Run]) -> Iterator[str]:
    """Describe differences that make the rows of a data set hard to compare."""
    videos = evaluations.groupby("manifest", sort=False)["folder"]
    if len(videos) > 1:
        parts = (f"{manifest[:8]}: {listed(folders.tolist(), 4)}" for manifest, folders in videos)
        yield f"The videos of {data} were not the same in all runs: {'; '.join(parts)}."
    seeds = evaluations.groupby(["method", "setup"], sort=False).size()
    fewer = [
        f"{method} {setup}".rstrip() + f" {n}" for (method, setup), n in seeds.items() if n < seeds.max()
    ]
    if fewer:
        yield f"Numbers of seeds differ on {data}: {seeds.max()}, but {listed(fewer, 20)}."
    settings: dict[str, list[Run]] = defaultdict(list)
    for run in (by_folder[folder] for folder in evaluations["folder"]):
        if run.recipe:
            settings[
                json.dumps(_settings(run.recipe, (*_METHOD_SETTINGS, *_HARMLESS)), sort_keys=True)
            ].append(run)
    if len(settings) > 1:
        differing = _differing_settings(settings.values(), (*_METHOD_SETTINGS, *_HARMLESS))
        yield f"Rows of {data} differ in more than their method: {'; '.join(differing)}."


def _differing_settings(groups: Iterable[Sequence[Run]], ignored: Sequence[str]) -> list[str]:
    """Describe each group of runs with one recipe: its differing settings and its folders."""
    by_recipe = [(_settings(runs[0].recipe, ignored), runs) for runs in groups if runs[0].recipe]
    keys = dict.fromkeys(key for settings, _ in by_recipe for key in settings)
    differing = [key for key in keys if len({json.dumps(settings.get(key)) for settings, _ in by_recipe}) > 1]
    return [
        ", ".join(
            f"{key}={'default' if settings.get(key) is None else settings[key]}" for key in differing[:4]
        )
        + f" in {listed([run.folder for run in runs], 4)}"
        for settings, runs in by_recipe
    ]


def _settings(recipe: Recipe, ignored: Sequence[str]) -> dict[str, object]:
    """Values of a recipe by dotted key, without the ignored sections."""
    return flat(recipe.without(ignored))
