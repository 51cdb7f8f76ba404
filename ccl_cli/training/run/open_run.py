"""A new run's folder, or the one to go on with: one training at a time, and only if nothing has changed."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from ccl_cli.config.load import load_recipe, to_yaml
from ccl_cli.config.recipe import ASIDE, SCORES, Recipe
from ccl_cli.data.manifest import Manifest, read_header
from ccl_cli.errors import CclError, RecipeError, UsageError
from ccl_cli.training.run.checkpoint import holds_state
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
    """Open and lock a run's folder; :func:`release` it afterwards.

    Args:
        recipe: The experiment.
        manifest: Its data.
        resume: A run's folder; "auto" (``output`` if it is one, else the newest unfinished run of the same
            recipe, else a new run); or None for a new run.
        output: Folder of a new run.

    Returns:
        The folder, and whether it holds a checkpoint.

    Raises:
        DataError: not a run folder.
        UsageError: finished, in use, or its data set has changed.
        RecipeError: the recipe has changed.
    """
    path = _unfinished(recipe, output) if resume == "auto" else resume and Path(resume)
    if not path:
        return _start_run(recipe, manifest, RunFolder(output) if output else RunFolder.new(recipe)), False
    if output is not None and path != output:
        raise UsageError("--resume goes on in the run's own folder.", "Leave --output out.")
    run = find_run(path)
    _lock(run)
    try:
        _check_same(recipe, manifest, run)
    except CclError:
        release(run)
        raise
    write_text(path / RECIPE, to_yaml(recipe))
    return run, holds_state(run.state)


def _start_run(recipe: Recipe, manifest: Manifest, run: RunFolder) -> RunFolder:
    run.refuse_used()
    _lock(run)
    try:
        run.refuse_used()  # by another process, before it was ours
        write_text(run.path / RECIPE, to_yaml(recipe))
        _save(manifest, run)
    except BaseException:
        release(run)
        raise
    return run


def _save(manifest: Manifest, run: RunFolder) -> None:
    """The list as JSON lines, which people can read; of a long one they would fill the disk."""
    manifest.save(run.path / (MAPPED_MANIFEST if manifest.is_mapped else MANIFEST))


def release(run: RunFolder) -> None:
    """Let others train in the folder again."""
    if file := _locks.pop(run.path.resolve(), None):
        file.close()


def _lock(run: RunFolder) -> None:
    refusal = f"Another process is training in '{run.path}'."
    _locks[run.path.resolve()] = lock_file(
        run.path / ".lock", refusal, "Wait for it, or start a run of its own."
    )
    remove_leftovers(run.path, run.state)


def _unfinished(recipe: Recipe, output: Path | None) -> Path | None:
    if output is not None:
        return output if (output / RECIPE).is_file() else None
    runs = [run for run in all_runs() if not run.finished and _has_recipe(recipe, run)]
    return max((run.path for run in runs), key=lambda path: path.name, default=None)


def _has_recipe(recipe: Recipe, run: RunFolder) -> bool:
    try:
        return not _changes(recipe, run)
    except CclError:  # another version's recipe, or no recipe at all
        return False


def _may_change(recipe: Recipe) -> tuple[str, ...]:
    """What a resumed run may change: nothing that decides the result of what it has done already."""
    may_change = (*ASIDE, "train.max_steps")
    return may_change if recipe.train.chooses else (*may_change, *SCORES, "eval")


def _changes(recipe: Recipe, run: RunFolder) -> list[str]:
    """Sections of the recipe that are not as the run began with them."""
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
    if not manifest_path(run.path).exists():  # ended before it had taken a step
        _save(manifest, run)
    if read_header(manifest_path(run.path)).get("hash") != manifest.hash:
        raise UsageError(
            f"The data set, or a file of it, has changed since '{run.path}' began.",
            "Restore it, or start a new run.",
        )
