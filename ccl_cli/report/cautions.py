"""What must not be averaged, and what a reader of a table has to know."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import UsageError
from ccl_cli.report.collect import Run, flat, seedless
from ccl_cli.utils.sentences import listed

# Rows may differ in these; in anything else they should not.
_OF_THE_ROW = ("name", "description", "data", "teachers", "method", "train.seed")
_NOT_HASHED = (
    "bench",
    "methods",
    *(f"train.{key}" for key in ("workers", "log_every", "checkpoint_every", "max_skipped", "tracker")),
)
_NO_MATTER = (*_NOT_HASHED, "max_unreadable", "eval.batch_size")


def failures(failed: Iterable[Run]) -> list[str]:
    """What failed, by reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for run in failed:
        by_reason[run.error or ""].append(f"{run.label} seed {run.seed} ({run.folder})")
    return [f"Failed ({reason.rstrip('.')}): {listed(names)}." for reason, names in by_reason.items()]


def check_one_recipe(data: str, runs: Sequence[Run]) -> None:
    """Refuse to average different recipes under one label.

    Raises:
        UsageError: names them, and what tells them apart.
    """
    recipes: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        recipes[seedless(run.recipe)].append(run)
    if len(recipes) < 2:
        return
    known = [(same[0].recipe, same) for same in recipes.values() if same[0].recipe]
    aside = ("name", "description", "train.seed", *_NOT_HASHED)
    raise UsageError(
        f"'{runs[0].label}' on {data} comes from {len(recipes)} different recipes, which are not averaged: "
        f"{'; '.join(_told_apart(known, aside))}.",
        f"Name the runs that belong together, for example `ccl report table {runs[0].folder} ...`.",
    )


def _told_apart(recipes: Sequence[tuple[Recipe, Sequence[Run]]], aside: Sequence[str]) -> list[str]:
    """Each recipe by the values in which it differs from the others, and its runs."""
    flats = [flat(recipe.model_dump(mode="json")) for recipe, _ in recipes]
    keys = [key for key in dict.fromkeys(key for values in flats for key in values) if not _under(key, aside)]
    differ = [key for key in keys if len({json.dumps(values.get(key)) for values in flats}) > 1]
    return [
        f"{', '.join(f'{key}={_word(values.get(key))}' for key in differ[:4])} in "
        f"{listed([run.folder for run in runs], 4)}"
        for values, (_, runs) in zip(flats, recipes, strict=True)
    ]


def _under(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _word(value: object) -> str:
    return "default" if value is None else str(value)


def differences(groups: Mapping[tuple[str, str, str], Sequence[Run]]) -> list[str]:
    """What makes the rows of one data set hard to compare."""
    notes = []
    for data in sorted({data for data, _, _ in groups}):
        own = {(method, setup): runs for (of, method, setup), runs in groups.items() if of == data}
        everyone = [run for runs in own.values() for run in runs]
        manifests: dict[str, list[Run]] = defaultdict(list)
        for run in everyone:
            manifests[run.manifests[data]].append(run)
        if len(manifests) > 1:
            parts = (f"{key[:8]}: {listed([r.folder for r in runs], 4)}" for key, runs in manifests.items())
            notes.append(f"The videos of {data} were not the same in all runs: {'; '.join(parts)}.")
        notes += _uneven_seeds(data, own) + _other_settings(data, everyone)
    return notes


def _uneven_seeds(data: str, groups: Mapping[tuple[str, str], Sequence[Run]]) -> list[str]:
    usual = max(len(runs) for runs in groups.values())
    fewer = [f"{runs[0].label} {len(runs)}" for runs in groups.values() if len(runs) < usual]
    return [f"Numbers of seeds differ on {data}: {usual}, but {listed(fewer, 20)}."] if fewer else []


def _other_settings(data: str, runs: Sequence[Run]) -> list[str]:
    settings: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.recipe:
            values = flat(run.recipe.model_dump(mode="json"))
            shared = {k: v for k, v in values.items() if not _under(k, (*_OF_THE_ROW, *_NO_MATTER))}
            settings[json.dumps(shared, sort_keys=True)].append(run)
    if len(settings) < 2:
        return []
    known = [(same[0].recipe, same) for same in settings.values() if same[0].recipe]
    return [
        f"Rows of {data} differ in more than their method: "
        f"{'; '.join(_told_apart(known, (*_OF_THE_ROW, *_NO_MATTER)))}."
    ]
