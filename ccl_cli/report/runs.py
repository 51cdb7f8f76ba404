"""Run folders as one frame: a row for each run, data set and metric. Tables and figures are made of it."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccl_cli.config import yaml_text
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import CclError, DataError, RecipeError, UsageError
from ccl_cli.executors.work import ERROR
from ccl_cli.training.run.folder import CELL, RECIPE, SUMMARY, read_json, run_paths
from ccl_cli.training.run.folder import METRICS as LOGGED
from ccl_cli.utils import json_text
from ccl_cli.utils.json_text import flat
from ccl_cli.utils.paths import runs_dir
from ccl_cli.utils.sentences import listed

if TYPE_CHECKING:
    from pandas import DataFrame

MAIN, ABLATION = "main", "ablation"

# By metric: its task and its title.
METRICS = {
    "top1": ("recognition", "top-1"),
    "top5": ("recognition", "top-5"),
    "mean_class": ("recognition", "mean of classes"),
    "r1": ("retrieval", "R@1"),
    "r5": ("retrieval", "R@5"),
    "r10": ("retrieval", "R@10"),
    "map": ("retrieval", "mAP"),
}

# The paper's words for options of ccl that remove a part of it.
_ABLATED = {
    ("composition", False): "w/o composition",
    ("contrast", "infonce"): "w L_ct",
    ("nce", False): "w/o L_nce",
    ("jsd", False): "w/o L_jsd",
}
_DEPTH = 3


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: Its path as the user or the search named it.
        method: Row of the tables.
        setup: Column of the tables: the letters of the teachers' modalities, "" without teachers.
        ablation: Whether the row belongs to the ablation table.
        seed: Seed of the run.
        hash: The recipe's hash; "" if the run failed before it recorded one.
        settings: Hash of the recipe without its seed and name; "" without a recipe.
        recipe: None if the run failed before it was written.
        modalities: The teachers' modalities.
        metrics: Percent, by data set and metric.
        manifests: Hash of the evaluated videos, by data set.
        trained_on: Hash of the videos it was trained on; "" if not recorded.
        error: Why it failed, or None.
        written: When its summary was last written, in nanoseconds.
    """

    folder: Path
    method: str
    setup: str
    ablation: bool
    seed: int
    hash: str = ""
    settings: str = ""
    recipe: Recipe | None = None
    modalities: tuple[str, ...] = ()
    metrics: Mapping[tuple[str, str], float] = field(default_factory=dict)
    manifests: Mapping[str, str] = field(default_factory=dict)
    trained_on: str = ""
    error: str | None = None
    written: int = 0

    @property
    def label(self) -> str:
        """Row and column, for sentences."""
        return f"{self.method} {self.setup}".rstrip()

    def evaluates_own_videos(self, data: str) -> bool:
        """Whether the evaluated videos belong to the manifest of the training, as far as it is recorded."""
        return not self.trained_on or self.manifests[data] in ("", self.trained_on)

    def check_own_videos(self, data: str) -> None:
        """Refuse to show videos that the metrics of a data set do not come from.

        Raises:
            DataError: the run was evaluated on other videos of the data set than those of its training.
        """
        if not self.evaluates_own_videos(data):
            raise DataError(
                f"'{self.folder}' was evaluated on other videos of {data} than those it was trained with: "
                "there is no picture of them.",
                f"Evaluate it on its own with `ccl eval {self.folder}`.",
            )


@dataclass(frozen=True, eq=False)
class Runs:
    """What some folders hold.

    Attributes:
        evaluated: Runs with metrics, the oldest first.
        failed: Runs that did not reach an evaluation.
        notes: One sentence for each thing that a reader has to know.
        frame: See :func:`runs`.
    """

    evaluated: tuple[Run, ...]
    failed: tuple[Run, ...]
    notes: tuple[str, ...]
    frame: DataFrame

    def of_two(self, first: str, second: str) -> Runs:
        """The runs of two methods alone: what is wrong with the others does not matter.

        Raises:
            UsageError: a method has no run, or it is named twice.
        """
        for method in (first, second):
            check_known("method", method, self.frame["method"])
        if first == second:
            raise UsageError(f"'{first}' is compared with itself.", "Name two methods.")
        evaluated, failed = (
            tuple(run for run in some if run.method in (first, second))
            for some in (self.evaluated, self.failed)
        )
        return Runs(evaluated, failed, self.notes, self.frame[self.frame["method"].isin((first, second))])


def runs(*folders: Path | str, split: str = "test") -> DataFrame:
    """Runs and what they reached: one row for each run, data set and metric.

    Columns: ``data``, ``method``, ``setup``, ``metric``, ``seed``, ``value`` in percent (missing for a failed
    run), ``error``, ``ablation``, ``settings`` (a hash of all of the recipe but its seed and name),
    ``recipe`` (the recipe's own hash), ``manifest`` (a hash of the evaluated videos) and ``folder``.

    Args:
        folders: Run folders, or folders of them; none for the newest that holds an evaluated run.
        split: Whose evaluation to read: "test" or "val".

    Raises:
        DataError: no such folder, or nothing in it has been evaluated.
    """
    return read_runs([Path(folder) for folder in folders], split).frame


def curves(run: Path | str) -> DataFrame:
    """What a run logged while it trained: a row a step with a line in its metrics, a column a figure.

    Args:
        run: The run's folder.

    Raises:
        DataError: there is no such run, or nothing readable in its metrics.
    """
    frame = logged(Path(run))
    if frame.empty:
        raise DataError(f"'{run}' has logged no figures.", "Name a run's folder.")
    return frame


def logged(folder: Path) -> DataFrame:
    """As :func:`curves`, without lines that are damaged; empty where nothing can be read."""
    from pandas import DataFrame

    by_step: dict[int, dict[str, float]] = {}
    with suppress(OSError):
        for line in (folder / LOGGED).read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
                entry = json_text.parse(line)
                figures = {key: float(value) for key, value in entry.items() if value is not None}
                by_step.setdefault(int(entry["step"]), {}).update(figures)  # a score has a line of its own
    frame = DataFrame.from_dict(by_step, orient="index", dtype=float).sort_index()
    return frame.rename_axis("step").drop(columns="step", errors="ignore")


def read_runs(paths: Sequence[Path] = (), split: str = "test") -> Runs:
    """Read run folders, or all in a folder such as a benchmark's; arguments and errors as of :func:`runs`."""
    folders: dict[Path, Path] = {}
    for folder in chain.from_iterable(map(_expand, paths)) if paths else _newest():
        folders.setdefault(folder.resolve(), folder)
    short = abbreviations(chain.from_iterable(_modalities(read_json(f / SUMMARY)) for f in folders.values()))
    read: list[Run] = []
    omitted: dict[str, list[str]] = defaultdict(list)
    for folder in folders.values():
        if read_json(folder / CELL).get("phase") == "tune":
            continue
        run = _read(folder, split, short)
        if isinstance(run, Run):
            read.append(run)
        else:
            omitted[run].append(str(folder))
    notes = [clean(f"Left out, {reason}: {listed(names)}.") for reason, names in omitted.items()]
    evaluated = sorted((run for run in read if run.error is None), key=lambda run: run.written)
    if not evaluated:
        where = ", ".join(f"'{path}'" for path in paths) or f"'{runs_dir()}'"
        option = "" if split == "test" else f" --split {split}"
        raise DataError(
            f"No evaluated run in {where}.", "\n  ".join([*notes, f"Evaluate with `ccl eval RUN{option}`."])
        )
    succeeded = {(run.method, run.setup, run.seed) for run in evaluated}
    failed = [run for run in read if run.error and (run.method, run.setup, run.seed) not in succeeded]
    frame, repeats = _newest_of_repeats(_frame(evaluated, failed))
    counted = tuple(run for run in evaluated if str(run.folder) in set(frame["folder"]))
    return Runs(counted, tuple(failed), (*notes, *map(clean, repeats)), frame)


def abbreviations(modalities: Iterable[str]) -> dict[str, str]:
    """By modality as many of its first letters as tell it from the others: A and I, but Ima and Imu."""
    names = set(modalities)

    def alone(start: str) -> bool:
        return sum(name.startswith(start) for name in names) == 1

    starts = {name: [name[:length] for length in range(1, len(name))] for name in names}
    return {name: next(filter(alone, starts[name]), name).capitalize() for name in names}


def seedless(recipe: Recipe) -> str:
    """Hash over all that decides a result except the seed."""
    train = recipe.train.model_copy(update={"seed": 0})
    return recipe.model_copy(update={"train": train}).hash()


def check_known(kind: str, name: str, names: Iterable[str]) -> None:
    """Refuse a name that is not among those known.

    Raises:
        UsageError: suggests the nearest one.
    """
    names = list(dict.fromkeys(names))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        suggestion = f"Did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"There is no {kind} '{name}' here.",
            f"{suggestion}There are: {', '.join(each or '(none)' for each in names)}.",
        )


def clean(text: object) -> str:
    """Free text on one line, without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


def _newest() -> list[Path]:
    """Return the newest evaluated run, with all runs in its folder."""
    folders = run_paths(SUMMARY)
    for folder in sorted(folders, key=lambda folder: (folder / SUMMARY).stat().st_mtime_ns, reverse=True):
        if read_json(folder / SUMMARY).get("evaluation"):
            root = folder.parent
            # Beside runs/NAME are the folders of other experiments, which do not belong to it.
            return list(_runs_in(root, 1)) if root == runs_dir() else _expand(root)
    raise DataError(f"There is no evaluated run under '{runs_dir()}'.", "Evaluate one with `ccl eval`.")


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DataError(f"There is no folder '{path}'.", f"The runs are under '{runs_dir()}'.")
    folders = list(_runs_in(path, _DEPTH))
    if not folders:
        raise DataError(f"'{path}' holds no runs.", f"The runs are under '{runs_dir()}'.")
    return folders


def _runs_in(folder: Path, depth: int) -> Iterator[Path]:
    if any((folder / name).is_file() for name in (RECIPE, CELL)):
        yield folder
    elif depth:
        for below in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield from _runs_in(below, depth - 1)


def _frame(evaluated: Sequence[Run], failed: Sequence[Run]) -> DataFrame:
    from pandas import DataFrame

    rows = [_row(run, *key, value) for run in evaluated for key, value in run.metrics.items()]
    for run in failed:
        # Nothing tells for which data a failed run was; the runs beside it do.
        beside = [other for other in evaluated if other.folder.parent == run.folder.parent]
        keys = dict.fromkeys(key for other in beside or evaluated for key in other.metrics)
        rows += [_row(run, *key, float("nan")) for key in keys]
    return DataFrame(rows)


def _row(run: Run, data: str, metric: str, value: float) -> dict[str, object]:
    return {
        "data": data,
        "method": run.method,
        "setup": run.setup,
        "metric": metric,
        "seed": run.seed,
        "value": value,
        "error": run.error or "",
        "ablation": run.ablation,
        "settings": run.settings,
        "recipe": run.hash,
        "manifest": run.manifests.get(data, ""),
        "folder": str(run.folder),
    }


def _newest_of_repeats(frame: DataFrame) -> tuple[DataFrame, list[str]]:
    """Of runs that repeat each other keep the newest, data set by data set, and say which those are."""
    repeats = frame.groupby(["data", "method", "setup", "seed", "settings", "error"], sort=False)["folder"]
    notes = []
    for (data, method, setup, seed, *_, error), folders in repeats.unique().items():
        *older, newest = folders
        if older and not error:
            notes.append(
                f"{f'{method} {setup}'.rstrip()}, seed {seed}, was run {len(folders)} times with one recipe: "
                f"on {data} the newest counts, {newest}; not {listed(older)}."
            )
    newest = repeats.transform("last")
    return frame[(frame["folder"] == newest) | (frame["error"] != "")], notes


def _read(folder: Path, split: str, short: Mapping[str, str]) -> Run | str:
    """A run, or why it does not count."""
    summary, cell, error = (read_json(folder / name) for name in (SUMMARY, CELL, ERROR))
    metrics, manifests = _metrics(folder, summary, split)
    try:
        recipe = _recipe(folder / RECIPE) if (folder / RECIPE).is_file() else None
    except CclError as problem:
        return f"its recipe cannot be read ({clean(problem.message)})"
    if not metrics and not error:
        return f"not evaluated on its {split} videos yet"
    if metrics and not summary.get("finished", True):
        return "stopped before its end"
    if metrics and recipe is None:
        return f"no {RECIPE} says how it was trained"
    derived = _derived(recipe, summary, short) if recipe else {}
    labels = derived | {key: cell[key] for key in ("method", "setup", "table") if key in cell}
    return Run(
        folder=folder,
        method=clean(labels.get("method", folder.name)),
        setup=clean(labels.get("setup", "")),
        ablation=labels.get("table") == ABLATION,
        seed=int(cell.get("seed", summary.get("seed", 0))),
        hash=str(summary.get("recipe", "")),
        settings=seedless(recipe) if recipe else "",
        recipe=recipe,
        modalities=_modalities(summary),
        metrics=metrics,
        manifests=manifests,
        trained_on=str(summary.get("data", {}).get("manifest", "")),
        error=None if metrics else clean(error.get("message", "it failed")),
        written=(folder / SUMMARY).stat().st_mtime_ns if metrics else 0,
    )


def _recipe(path: Path) -> Recipe:
    # A recipe that a run wrote needs no line numbers: a benchmark's hundred are read in a tenth of a second.
    try:
        text = path.read_text(encoding="utf-8")
        return Recipe.model_validate(yaml_text.parse_own(text, path.name))
    except (OSError, ValueError, RecipeError):
        return load_recipe(str(path))  # says what is wrong


def _metrics(
    folder: Path, summary: Mapping[str, Any], split: str
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """Percent by data set and metric, and hashes of the evaluated videos by data set."""
    metrics: dict[tuple[str, str], float] = {}
    manifests: dict[str, str] = {}
    for name, tasks in summary.get("evaluation", {}).items():
        data, _, evaluated_split = name.rpartition("-")
        if evaluated_split != split:
            continue
        for metric, (task, _) in METRICS.items():
            value = tasks.get(task, {}).get(metric)
            if isinstance(value, int | float) and 0 <= value <= 100:
                metrics[data, metric] = float(value)
        recorded = read_json(folder / f"eval-{name}.json").get("data") or summary.get("data", {})
        manifests[data] = str(recorded.get("manifest", ""))
    return metrics, manifests


def _derived(recipe: Recipe, summary: Mapping[str, Any], short: Mapping[str, str]) -> dict[str, str]:
    changed = summary.get("options", {})
    method = "+".join(_label(name, options, changed.get(name)) for name, options in recipe.method.items())
    setup = "".join(sorted(short[modality] for modality in _modalities(summary)))
    table = ABLATION if method.startswith(("ccl w ", "ccl w/o ")) else MAIN
    return {"method": method, "setup": setup, "table": table}


def _label(name: str, options: Mapping[str, Any], changed: Mapping[str, Any] | None) -> str:
    """The method's name with what differs from its defaults; all that was written, if that is not known."""
    own = {key: value for key, value in options.items() if changed is None or key in changed}
    words, rest = [name], []
    for key, value in own.items():
        ablated = _ABLATED.get((key, value)) if name == "ccl" and isinstance(value, bool | str) else None
        if ablated:
            words.append(ablated)
        else:
            rest += [f"{inner}={text}" for inner, text in flat({key: value}).items()]
    return " ".join([*words, f"({', '.join(rest)})"] if rest else words)


def _modalities(summary: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name.partition(":")[0] for name in summary.get("teachers", {}))
