"""One run: labels, recipe and results, read from a run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccl_cli.config import yaml_text
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import CclError, DataError, RecipeError
from ccl_cli.executors.work import ERROR
from ccl_cli.training.run.folder import CELL, RECIPE, SUMMARY, read_json
from ccl_cli.utils.json_text import flat
from ccl_cli.utils.text import one_line

MAIN, ABLATION = "main", "ablation"
# Task and title of each metric.
METRICS = {
    "top1": ("recognition", "top-1"),
    "top5": ("recognition", "top-5"),
    "mean_class": ("recognition", "mean of classes"),
    "r1": ("retrieval", "R@1"),
    "r5": ("retrieval", "R@5"),
    "r10": ("retrieval", "R@10"),
    "map": ("retrieval", "mAP"),
}
# The paper's names for options of the method ccl that remove or replace one of its parts.
_ABLATED = {
    ("composition", False): "w/o composition",
    ("contrast", "infonce"): "w L_ct",
    ("nce", False): "w/o L_nce",
    ("jsd", False): "w/o L_jsd",
}


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: Path of the run folder, as given by the user or found by the search.
        method: Label of the table row.
        setup: Label of the table column: the letters of the teachers' modalities; "" without teachers.
        ablation: Whether the row belongs to the ablation table.
        seed: Seed of the run.
        hash: Hash of the recipe; "" if the run failed before recording it.
        settings: Hash of the recipe without seed and name; "" without a recipe.
        recipe: Recipe; None if the run failed before writing it.
        modalities: Modalities of the teachers.
        metrics: Values in percent by (data set, metric).
        manifests: Hash of the evaluated videos by data set.
        trained_on: Hash of the training videos; "" if not recorded.
        error: Reason of the failure, or None.
        written: Modification time of the summary, in nanoseconds.
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
        """Method and setup, for sentences."""
        return f"{self.method} {self.setup}".rstrip()

    def evaluates_own_videos(self, data: str) -> bool:
        """Whether the evaluated videos are from the training manifest; True if it was not recorded."""
        return not self.trained_on or self.manifests[data] in ("", self.trained_on)

    def check_own_videos(self, data: str) -> None:
        """Check that the videos of the training manifest are the videos that the metrics were computed on.

        Raises:
            DataError: the run was evaluated on other videos of the data set.
        """
        if not self.evaluates_own_videos(data):
            raise DataError(
                f"'{self.folder}' was evaluated on other videos of {data} than those it was trained with: "
                "there is no picture of them.",
                f"Evaluate it on its own with `ccl eval {self.folder}`.",
            )


def read_run(folder: Path, split: str, short: Mapping[str, str]) -> Run | str:
    """Read a run folder.

    Args:
        folder: Run folder.
        split: Split whose evaluation is read: "test" or "val".
        short: Letters of each modality, from :func:`abbreviations`.

    Returns:
        The run, or the reason for leaving it out.
    """
    summary, cell, error = (read_json(folder / name) for name in (SUMMARY, CELL, ERROR))
    metrics, manifests = _metrics(folder, summary, split)
    try:
        recipe = _recipe(folder / RECIPE) if (folder / RECIPE).is_file() else None
    except CclError as problem:
        return f"its recipe cannot be read ({one_line(problem.message)})"
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
        method=one_line(labels.get("method", folder.name)),
        setup=one_line(labels.get("setup", "")),
        ablation=labels.get("table") == ABLATION,
        seed=int(cell.get("seed", summary.get("seed", 0))),
        hash=str(summary.get("recipe", "")),
        settings=seedless(recipe) if recipe else "",
        recipe=recipe,
        modalities=modalities_of(summary),
        metrics=metrics,
        manifests=manifests,
        trained_on=str(summary.get("data", {}).get("manifest", "")),
        error=None if metrics else one_line(error.get("message", "it failed")),
        written=(folder / SUMMARY).stat().st_mtime_ns if metrics else 0,
    )


def abbreviations(modalities: Iterable[str]) -> dict[str, str]:
    """Return the shortest unique prefix of each modality, capitalised: A and I, but Ima and Imu."""
    names = set(modalities)

    def unique(prefix: str) -> bool:
        return sum(name.startswith(prefix) for name in names) == 1

    prefixes = {name: [name[:length] for length in range(1, len(name))] for name in names}
    return {name: next(filter(unique, prefixes[name]), name).capitalize() for name in names}


def seedless(recipe: Recipe) -> str:
    """Hash of a recipe without its seed (and its name, which no recipe hash contains)."""
    train = recipe.train.model_copy(update={"seed": 0})
    return recipe.model_copy(update={"train": train}).hash()


def modalities_of(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modalities of the teachers that a run summary lists."""
    return tuple(name.partition(":")[0] for name in summary.get("teachers", {}))


def _recipe(path: Path) -> Recipe:
    # The fast parser records no line numbers: it reads a hundred recipes in 0.1 s.
    try:
        text = path.read_text(encoding="utf-8")
        return Recipe.model_validate(yaml_text.parse(text, path.name))
    except (OSError, ValueError, RecipeError):
        return load_recipe(str(path))  # raises with the line of the error


def _metrics(
    folder: Path, summary: Mapping[str, Any], split: str
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """Return values in percent by (data set, metric), and the hash of the evaluated videos by data set."""
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
    setup = "".join(sorted(short[modality] for modality in modalities_of(summary)))
    table = ABLATION if method.startswith(("ccl w ", "ccl w/o ")) else MAIN
    return {"method": method, "setup": setup, "table": table}


def _label(name: str, options: Mapping[str, Any], changed: Mapping[str, Any] | None) -> str:
    """Name a method with its non-default options; with all options if the defaults are not recorded."""
    own = {key: value for key, value in options.items() if changed is None or key in changed}
    words, rest = [name], []
    for key, value in own.items():
        ablated = _ABLATED.get((key, value)) if name == "ccl" and isinstance(value, bool | str) else None
        if ablated:
            words.append(ablated)
        else:
            rest += [f"{inner}={text}" for inner, text in flat({key: value}).items()]
    return " ".join([*words, f"({', '.join(rest)})"] if rest else words)
