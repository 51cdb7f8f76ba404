"""Opening of a run's folder, new or to resume. It is locked, and recipe and data set must be unchanged."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO

from ccl_cli.config.load import load_recipe, to_yaml
from ccl_cli.config.recipe import ASIDE, SCORES, Recipe
from ccl_cli.data.manifest import Manifest, read_header
from ccl_cli.errors import CclError, RecipeError, UsageError
from ccl_cli.training.run.checkpoint import states
from ccl_cli.training.run.folder import (
    MANIFEST,
    MAPPED_MANIFEST,
    RECIPE,
    RunFolder,
    all_runs,
    find_run,
    manifest_path,
)
from ccl_cli.utils.files import lock_file, remove_leftovers, write_text

_locks: dict[Path, IO[str]] = {}


def open_run(
    recipe: Recipe, manifest: Manifest, resume: Path | str | None, output: Path | None
) -> tuple[RunFolder, bool]:
    """Open and lock a run's folder. Call :func:`release` afterwards.

    ``resume`` is the run folder to resume. "auto": ``output`` if it is a run, else the newest unfinished run
    of the same recipe, else a new run. None: a new run. Returns the folder, and whether it has a checkpoint.

    Raises:
        DataError: the folder is not a run folder.
        UsageError: the run has finished, is in use, or its data set has changed.
        RecipeError: the recipe has changed.
    """
    path = Path(resume) if resume else None
    if resume == "auto":
        path = _unfinished(recipe, output)
    if path and output is not None and path != output:
        raise UsageError("--resume continues in the run's own folder.", "Omit --output.")
    new = RunFolder(output) if output else RunFolder.new(recipe)
    run = find_run(path) if path else new
    check = partial(_check_same, recipe, manifest, run) if path else run.refuse_used
    check()  # before a lock file is written
    _lock(run)
    try:
        check()  # another process may have used the folder before it was locked
        write_text(run.path / RECIPE, to_yaml(recipe))
        if not manifest_path(run.path).exists():
            # Readable JSON lines; a long list becomes an Arrow file, which is smaller.
            manifest.save(run.path / (MAPPED_MANIFEST if manifest.is_mapped else MANIFEST))
    except BaseException:
        release(run)
        raise
    return run, bool(states(run.checkpoints))


def release(run: RunFolder) -> None:
    """Unlock a run's folder."""
    if file := _locks.pop(run.path.resolve(), None):
        file.close()


def _lock(run: RunFolder) -> None:
    refusal = f"Another process is training in '{run.path}'."
    _locks[run.path.resolve()] = lock_file(
        run.path / ".lock", refusal, "Wait for it, or start a run of its own."
    )
    remove_leftovers(run.path, run.checkpoints)


def _unfinished(recipe: Recipe, output: Path | None) -> Path | None:
    if output is not None:
        return output if (output / RECIPE).is_file() else None
    runs = [run for run in all_runs() if not run.finished and _has_recipe(recipe, run)]
    return max((run.path for run in runs), key=lambda path: path.name, default=None)


def _has_recipe(recipe: Recipe, run: RunFolder) -> bool:
    try:
        return not _changes(recipe, run)
    except CclError:  # a recipe of another version, or damaged
        return False


def _may_change(recipe: Recipe) -> tuple[str, ...]:
    """Settings that a resumed run may change, because its finished steps do not depend on them."""
    may_change = (*ASIDE, "train.max_steps")
    return may_change if recipe.train.chooses else (*may_change, *SCORES, "eval")


def _changes(recipe: Recipe, run: RunFolder) -> list[str]:
    """Sections of the recipe that have changed since the run started."""
    previous = load_recipe(str(run.path / RECIPE))
    now, then = (each.without(_may_change(recipe)) for each in (recipe, previous))
    return sorted(section for section in now if now[section] != then[section])


def _check_same(recipe: Recipe, manifest: Manifest, run: RunFolder) -> None:
    if run.finished:
        raise UsageError(f"'{run.path}' has finished.", f"Evaluate it with `ccl eval {run.path}`.")
    if changed := _changes(recipe, run):
        raise RecipeError(
            f"The recipe differs from the one '{run.path}' began with, in: {', '.join(changed)}.",
            f"Only {', '.join(_may_change(recipe))} may change.",
        )
    # The manifest is missing if the process ended before its first step.
    if (saved := manifest_path(run.path)).exists() and read_header(saved).get("hash") != manifest.hash:
        raise UsageError(
            f"The data set, or a file of it, has changed since '{run.path}' began.",
            "Restore it, or start a new run.",
        )
