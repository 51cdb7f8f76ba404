"""The cells of a benchmark, with their recipes and folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ccl_cli import registry
from ccl_cli.config.load import check_recipe, merged, method_options
from ccl_cli.config.recipe import Bench, Recipe, Tune, columns
from ccl_cli.errors import RecipeError
from ccl_cli.utils.sentences import check_known, invalid

Table = Literal["main", "ablation"]
Phase = Literal["tune", "final"]
Factors = Mapping[tuple[str, str], float]
_NO_TEACHERS: dict[str, tuple[str, ...]] = {"": ()}


@dataclass(frozen=True)
class Cell:
    """One run of a benchmark.

    Attributes:
        method: Label of the row.
        setup: Label of the column; "" for a method without teachers.
        seed: Random seed.
        table: Whether the row belongs to the main tables or to the ablations.
        phase: "tune" for a run that only tunes a loss weight.
        factor: Factor on the loss weight of the method.
        recipe: Recipe to train.
    """

    method: str
    setup: str
    seed: int
    table: Table
    phase: Phase
    factor: float
    recipe: Recipe

    @property
    def label(self) -> str:
        """``ccl AI seed 1``, ``pkt A x0.1 seed 0``."""
        factor = f"x{self.factor:g}" if self.phase == "tune" else ""
        return " ".join(filter(None, [self.method, self.setup, factor, f"seed {self.seed}"]))

    @property
    def folder(self) -> str:
        """Name of the run's folder, which includes the recipe's hash."""
        words = re.sub(r"[^\w.]+", "-", self.label.replace("seed ", "s"))
        return f"{'tune-' if self.phase == 'tune' else ''}{words}-{self.recipe.hash()}"

    @property
    def record(self) -> dict[str, Any]:
        """Metadata for the tables, stored in the run's folder."""
        entries = {key: value for key, value in asdict(self).items() if key != "recipe"}
        return {"bench": self.recipe.name} | entries

    def item(self, root: Path) -> dict[str, Any]:
        """The cell as JSON values, for an executor."""
        recipe = self.recipe.model_dump(mode="json")
        return {"folder": str(root.absolute() / self.folder), "record": self.record, "recipe": recipe}


def final_cells(recipe: Recipe, factors: Factors) -> list[Cell]:
    """Return all cells of the tables; an ablation uses the factor of the row with the same methods.

    Args:
        recipe: Recipe with a benchmark, whose weights apply where no factor was tuned.
        factors: Tuned factors by row and column.

    Raises:
        RecipeError: the recipe has no benchmark, or a row is not a valid recipe.
    """
    bench = section(recipe)
    weights = {(row, setup): factor for row, by in bench.weights.items() for setup, factor in by.items()}
    weights |= factors
    return [
        _cell(row, setup, teachers, seed, weights.get((row.tuned_as, setup), 1.0), "final")
        for row in _rows_to_run(recipe)
        for setup, teachers in row.cells_of(bench.setups).items()
        for seed in bench.seeds
    ]


def tune_cells(recipe: Recipe, *, hold_out: bool) -> list[Cell]:
    """Return the runs that tune the loss weights, none of which uses the test split.

    Args:
        recipe: Recipe with a benchmark whose ``tune`` is set.
        hold_out: Whether to hold out training videos, because the data set for tuning has no val split.
    """
    bench = section(recipe)
    if bench.tune is None:
        return []
    tuned = {row.tuned_as for row in _rows_to_run(recipe)}
    cells = [
        _cell(row, setup, teachers, seed, factor, "tune")
        for row in _rows(recipe)
        if row.table == "main" and row.method in tuned and row.uses_teachers
        for setup, teachers in row.cells_of(bench.setups).items()
        for factor in bench.tune.grid
        for seed in bench.tune.seeds
    ]
    changes: dict[str, Any] = {"holdout": bench.tune.holdout if hold_out else 0.0}
    if bench.tune.data:
        changes["data"] = bench.tune.data
    if bench.tune.epochs:
        changes["train"] = {"epochs": bench.tune.epochs}
    return [replace(cell, recipe=recipe_with(cell.recipe, changes, "bench.tune")) for cell in cells]


def section(recipe: Recipe) -> Bench:
    """Return the benchmark of a recipe."""
    if recipe.bench is None:
        raise RecipeError(
            f"The recipe '{recipe.name}' has no benchmark.",
            "Add a section `bench` with setups, methods and seeds; `ccl recipes show ucf51-bench` has one.",
        )
    return recipe.bench


def only(recipe: Recipe, methods: Collection[str], setups: Collection[str]) -> Recipe:
    """Restrict the benchmark of a recipe to the given rows and columns, if any.

    Raises:
        UsageError: a row or column does not exist.
    """
    bench = section(recipe)
    for method in methods:
        check_known("row", method, [*bench.methods, *bench.ablations])
    for setup in setups:
        check_known("setup", setup, bench.setups)
    chosen = {name: bench.setups[name] for name in setups or bench.setups}
    return _with_bench(recipe, setups=chosen, rows=tuple(methods) or bench.rows)


def with_tuning(recipe: Recipe) -> Recipe:
    """Enable tuning in the benchmark of a recipe, with its ``tune`` section or the defaults."""
    return _with_bench(recipe, tune=section(recipe).tune or Tune())


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        recipe: Recipe with the changes of the row, and without a benchmark.
        tuned_as: Label of the main row whose tuned weight it uses.
        setups: Columns of the row; None for all.
    """

    method: str
    table: Table
    recipe: Recipe
    tuned_as: str
    setups: tuple[str, ...] | None

    @property
    def uses_teachers(self) -> bool:
        """Whether the row has one cell per setup."""
        plugins = (registry.find(registry.METHODS, name) for name in self.recipe.method)
        return any(registry.load(plugin).uses_teachers for plugin in plugins)

    def cells_of(self, setups: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        """Return the columns in which the row has cells."""
        if not self.uses_teachers:
            return _NO_TEACHERS
        own = setups if self.setups is None else self.setups
        return {name: teachers for name, teachers in setups.items() if name in own}


def _rows(recipe: Recipe) -> Iterator[Row]:
    """Return all rows, starting with those of the main tables."""
    bench = section(recipe)
    main_rows: dict[tuple[str, ...], str] = {}
    for label, entry in bench.methods.items():
        changed = _row_recipe(recipe, entry, f"bench.methods.{label}")
        main_rows.setdefault(tuple(changed.method), label)
        yield Row(label, "main", changed, label, columns(entry))
    for label, entry in bench.ablations.items():
        changed = _row_recipe(recipe, entry, f"bench.ablations.{label}")
        yield Row(label, "ablation", changed, main_rows.get(tuple(changed.method), label), columns(entry))


def _row_recipe(recipe: Recipe, entry: str | Mapping[str, Any], where: str) -> Recipe:
    changes = recipe.method_changes(entry) if isinstance(entry, str) else entry
    return recipe_with(recipe, {key: value for key, value in changes.items() if key != "setups"}, where)


def _rows_to_run(recipe: Recipe) -> list[Row]:
    labels = section(recipe).rows
    return [row for row in _rows(recipe) if not labels or row.method in labels]


def recipe_with(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """Override values of a recipe: sections by key, methods and lists as a whole.

    Raises:
        RecipeError: a key is unknown or a value invalid; the message names ``where``.
    """
    values = recipe.model_dump(mode="json", exclude={"methods", "bench", "executor"})
    try:
        return Recipe.model_validate(merged(values, changes))
    except ValidationError as error:
        raise invalid(error, Recipe, tuple(where.split("."))) from None


def _with_bench(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"bench": section(recipe).model_copy(update=changes)})


def _cell(row: Row, setup: str, teachers: Sequence[str], seed: int, factor: float, phase: Phase) -> Cell:
    changes = {
        "teachers": teachers,
        "method": _weighted(row.recipe, factor),
        "train": {"seed": seed},
        "description": "",
    }
    trained = recipe_with(row.recipe, changes, "bench")
    return Cell(row.method, setup, seed, row.table, phase, factor, trained)


def _weighted(recipe: Recipe, factor: float) -> dict[str, dict[str, Any]]:
    """Multiply the loss weights of the methods."""
    if factor == 1.0:
        return recipe.method
    weighted = {}
    for name, given in recipe.method.items():
        cls = registry.load(registry.find(registry.METHODS, name))
        weight = getattr(method_options(cls, name, given), cls.tuned, None)
        weighted[name] = given | {cls.tuned: factor * (1.0 if weight is None else weight)}
    return weighted


def check(recipe: Recipe) -> None:
    """Validate the plugins and options of every cell.

    Raises:
        CclError: a cell is invalid.
    """
    registry.find(registry.EXECUTORS, recipe.executor.name)
    cells = [*tune_cells(recipe, hold_out=True), *final_cells(recipe, {})]
    for cell in {(cell.method, cell.setup): cell for cell in cells}.values():
        check_recipe(cell.recipe)
        if cell.recipe.labels_per_class == 0:
            raise RecipeError(
                f"A benchmark compares accuracies, but the row '{cell.method}' trains without labels.",
                "Set labels_per_class above 0, or train it with `ccl train`.",
            )
