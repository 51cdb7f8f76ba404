"""Runs as reports see them: the row and the column each belongs to, and the figures it reached."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ccl_cli.config import yaml_text
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import CclError, DataError, RecipeError, UsageError
from ccl_cli.training.runs import CELL, ERROR, RECIPE, SUMMARY, read_json
from ccl_cli.utils.paths import runs_dir
from ccl_cli.utils.sentences import listed

MAIN, ABLATION = "main", "ablation"

# Each figure's task and how it is called.
METRICS = {
    "top1": ("recognition", "top-1"),
    "top5": ("recognition", "top-5"),
    "mean_class": ("recognition", "mean of classes"),
    "r1": ("retrieval", "R@1"),
    "r5": ("retrieval", "R@5"),
    "r10": ("retrieval", "R@10"),
    "map": ("retrieval", "mAP"),
}

# The paper's words for options of ccl that take a part of it away.
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
        folder: As it was named or found.
        method: Label of its row.
        setup: Label of its column; "" without teachers.
        table: "main" or "ablation".
        seed: Seed of the run.
        hash: The recipe's hash, as the run recorded it; "" if it failed before that.
        recipe: None if it failed before that was written.
        modalities: The teachers' modalities.
        figures: In percent, by data set and metric.
        manifests: Hash of the videos evaluated, by data set.
        own: Hash of the videos it was trained on and whose splits it knows; "" if it does not say.
        error: Why it failed, or None.
        written: When its summary was last written, in nanoseconds.
    """

    folder: Path
    method: str
    setup: str
    table: str
    seed: int
    hash: str = ""
    recipe: Recipe | None = None
    modalities: tuple[str, ...] = ()
    figures: Mapping[tuple[str, str], float] = field(default_factory=dict)
    manifests: Mapping[str, str] = field(default_factory=dict)
    own: str = ""
    error: str | None = None
    written: int = 0

    @property
    def label(self) -> str:
        """Row and column, for sentences."""
        return f"{self.method} {self.setup}".rstrip()

    def is_own(self, data: str) -> bool:
        """Whether it was evaluated on the videos that it was trained with, as far as it says."""
        return not self.own or self.manifests[data] in ("", self.own)

    def check_own(self, data: str) -> None:
        """Refuse to show videos that are not those of a figure.

        Raises:
            DataError: it was evaluated on other videos of the data set than it was trained with.
        """
        if not self.is_own(data):
            raise DataError(
                f"'{self.folder}' was evaluated on other videos of {data} than those it was trained with: "
                "there is no picture of them.",
                f"Evaluate it on its own with `ccl eval {self.folder}`.",
            )


@dataclass(frozen=True)
class Collected:
    """Runs with figures, runs that failed, and one sentence for each thing a reader has to know."""

    runs: tuple[Run, ...]
    failed: tuple[Run, ...]
    notes: tuple[str, ...]


def collect(paths: Sequence[Path] = (), split: str = "test") -> Collected:
    """Read run folders, or all in a folder such as a benchmark's.

    Args:
        paths: Folders; none for the newest one under the runs' folder that holds an evaluated run.
        split: Whose evaluation to read: "test" or "val".

    Raises:
        DataError: no such folder, or nothing in it has been evaluated.
    """
    found: list[Run] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    folders: dict[Path, Path] = {}
    for path in paths or [_newest()]:
        for folder in _expand(path):
            folders.setdefault(folder.resolve(), folder)
    short = abbreviations(chain.from_iterable(_modalities(read_json(f / SUMMARY)) for f in folders.values()))
    for folder in folders.values():
        if read_json(folder / CELL).get("phase") == "tune":
            continue
        run = _read(folder, split, short)
        if isinstance(run, Run):
            found.append(run)
        else:
            left_out[run].append(str(folder))
    notes = [clean(f"Left out, {reason}: {listed(names)}.") for reason, names in left_out.items()]
    runs = [run for run in found if run.error is None]
    if not runs:
        where = ", ".join(f"'{path}'" for path in paths) or f"'{runs_dir()}'"
        raise DataError(
            f"No evaluated run in {where}.", "\n  ".join([*notes, "Evaluate with `ccl eval RUN`."])
        )
    kept, repeated = _newest_of_each_seed(runs)
    done = {(run.method, run.setup, run.seed) for run in kept}
    failed = [run for run in found if run.error and (run.method, run.setup, run.seed) not in done]
    return Collected(tuple(kept), tuple(failed), (*notes, *map(clean, repeated)))


def abbreviations(modalities: Iterable[str]) -> dict[str, str]:
    """By modality as many of its first letters as tell it from the others: A and I, but Ima and Imu."""
    names = set(modalities)

    def alone(start: str) -> bool:
        return sum(name.startswith(start) for name in names) == 1

    starts = {name: [name[:length] for length in range(1, len(name))] for name in names}
    return {name: next(filter(alone, starts[name]), name).capitalize() for name in names}


def seedless(recipe: Recipe | None) -> str:
    """Hash over all that decides a result except the seed; the recipe's name aside."""
    if recipe is None:
        return ""
    train = recipe.train.model_copy(update={"seed": 0})
    return recipe.model_copy(update={"name": "run", "train": train}).hash()


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not among those known.

    Raises:
        UsageError: suggests the nearest one.
    """
    there = list(dict.fromkeys(known))
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1)
        suggestion = f"Did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"There is no {what} '{name}' here.",
            f"{suggestion}There are: {', '.join(each or '(none)' for each in there)}.",
        )


def clean(text: object) -> str:
    """Free text on one line, without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _newest() -> Path:
    summaries = runs_dir().glob(f"*/*/{SUMMARY}")
    for path in sorted(summaries, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if read_json(path).get("evaluation"):
            return path.parent.parent
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


def _read(folder: Path, split: str, short: Mapping[str, str]) -> Run | str:
    """A run, or why it does not count."""
    summary, cell, error = (read_json(folder / name) for name in (SUMMARY, CELL, ERROR))
    figures, manifests = _figures(folder, summary, split)
    try:
        recipe = _recipe(folder / RECIPE) if (folder / RECIPE).is_file() else None
    except CclError as problem:
        return f"its recipe cannot be read ({clean(problem.message)})"
    if not figures and not error:
        return f"not evaluated on its {split} videos yet"
    if figures and not summary.get("finished", True):
        return "stopped before its end"
    if figures and recipe is None:
        return f"no {RECIPE} says how it was trained"
    derived = _derived(recipe, summary, short) if recipe else {}
    labels = derived | {key: cell[key] for key in ("method", "setup", "table") if key in cell}
    return Run(
        folder=folder,
        method=clean(labels.get("method", folder.name)),
        setup=clean(labels.get("setup", "")),
        table=labels.get("table", MAIN),
        seed=int(cell.get("seed", summary.get("seed", 0))),
        hash=str(summary.get("recipe", "")),
        recipe=recipe,
        modalities=_modalities(summary),
        figures=figures,
        manifests=manifests,
        own=str(summary.get("data", {}).get("manifest", "")),
        error=None if figures else clean(error.get("message", "it failed")),
        written=(folder / SUMMARY).stat().st_mtime_ns if figures else 0,
    )


def _recipe(path: Path) -> Recipe:
    # What a run wrote needs no line numbers: a benchmark's hundred are read in a tenth of a second.
    try:
        text = path.read_text(encoding="utf-8")
        return Recipe.model_validate(yaml_text.parse_own(text, path.name))
    except (OSError, ValueError, RecipeError):
        return load_recipe(str(path))  # says what is wrong


def _figures(
    folder: Path, summary: Mapping[str, Any], split: str
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    figures: dict[tuple[str, str], float] = {}
    manifests: dict[str, str] = {}
    for name, tasks in summary.get("evaluation", {}).items():
        data, _, of_split = name.rpartition("-")
        if of_split != split:
            continue
        for metric, (task, _) in METRICS.items():
            value = tasks.get(task, {}).get(metric)
            if isinstance(value, int | float) and 0 <= value <= 100:
                figures[data, metric] = float(value)
        recorded = read_json(folder / f"eval-{name}.json").get("data") or summary.get("data", {})
        manifests[data] = str(recorded.get("manifest", ""))
    return figures, manifests


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


def _newest_of_each_seed(runs: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """Of runs that repeat each other only the newest keeps its figures, data set by data set."""
    same: dict[tuple[str, object], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.written):
        for data in sorted({data for data, _ in run.figures}):
            same[data, (run.method, run.setup, run.seed, seedless(run.recipe))].append(run)
    counting: dict[Path, tuple[Run, set[str]]] = {}
    for (data, _), again in same.items():
        counting.setdefault(again[-1].folder, (again[-1], set()))[1].add(data)
    notes = [
        f"{again[-1].label}, seed {again[-1].seed}, was run {len(again)} times with one recipe: on {data} "
        f"the newest counts, {again[-1].folder}; not {listed([run.folder for run in again[:-1]])}."
        for (data, _), again in same.items()
        if len(again) > 1
    ]
    return [_on(run, datasets) for run, datasets in counting.values()], notes


def _on(run: Run, datasets: Collection[str]) -> Run:
    """The run as if it had been evaluated on these alone."""
    figures = {key: value for key, value in run.figures.items() if key[0] in datasets}
    manifests = {data: value for data, value in run.manifests.items() if data in datasets}
    return replace(run, figures=figures, manifests=manifests)
