"""``ccl bench``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import (
    command,
    complete_recipes,
    executor_flags,
    optimisation_option,
    print_result,
    refuse_failed,
    runtime_option,
)
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.config.recipe import Recipe

app = typer.Typer(add_completion=False)
_log = logging.getLogger("ccl")

BenchRecipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Built-in recipe, or YAML file, with a `bench` section.",
        autocompletion=complete_recipes,
    ),
]
Rows = Annotated[
    list[str] | None, typer.Option(metavar="ROW", help="Run only this row of the tables. Repeatable.")
]
Setups = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Run only this teacher setup, e.g. AI. Repeatable.")
]
Tune = Annotated[
    bool,
    optimisation_option(
        "--tune", help="First tune the loss weight of each method on held-out training videos."
    ),
]
Jobs = Annotated[
    int | None, runtime_option(min=1, help="Number of parallel runs. Default: one per GPU, or one on a CPU.")
]
ListRuns = Annotated[bool, runtime_option("--dry-run", help="List the runs and their state; train nothing.")]


@command(
    app,
    "bench",
    "ccl bench synthetic-bench --dry-run",
    "ccl bench synthetic-bench --seeds 5",
    "ccl bench ucf51-bench --method ccl --method baseline --setup AI",
    "ccl bench ucf51-bench --tune",
    "ccl bench ucf51-bench --executor slurm",
)
def bench(
    recipe: BenchRecipe,
    data: options.Data = None,
    method: Rows = None,
    setup: Setups = None,
    seeds: options.Seeds = None,
    tune: Tune = False,
    epochs: options.Epochs = None,
    jobs: Jobs = None,
    executor: options.Executor = None,
    part: options.Part = None,
    precision: options.Precision = None,
    workers: options.Workers = None,
    dry_run: ListRuns = False,
    name: options.Name = None,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Train every method with every teacher setup and seed, and print the tables.

    Run the same command again to continue: finished runs are kept and failed runs are retried. Machines that
    share the runs folder share the work.
    """
    from ccl_cli.bench import matrix
    from ccl_cli.bench.seeds import parse_seeds
    from ccl_cli.config.load import load_recipe
    from ccl_cli.executors.part import parse_part

    flags: dict[str, Any] = {
        "name": name,
        "data": data,
        "train.epochs": epochs,
        "train.precision": precision,
        "train.workers": workers,
        "bench.seeds": None if seeds is None else parse_seeds(seeds),
        **executor_flags(executor, jobs),
    }
    share = parse_part(part)
    experiment = load_recipe(recipe, flags, set_ or ())
    experiment = matrix.only(experiment, method or (), setup or ())
    if tune:
        experiment = matrix.with_tuning(experiment)
    matrix.check(experiment)
    if dry_run:
        _print_plan(experiment, as_json)
        return
    from ccl_cli.bench.run import run_bench
    from ccl_cli.cli.report import print_tables

    outcome = run_bench(experiment, part=share)
    result = {"runs": [*map(str, outcome.folders)], "failed": [*map(str, outcome.failed)]}
    finished = set(outcome.folders) - set(outcome.failed)
    print_result(result, as_json, lambda: print_tables(outcome.folders if finished else ()))
    refuse_failed(outcome.failed)


def _print_plan(experiment: Recipe, as_json: bool) -> None:
    from ccl_cli.bench.run import folder_of, missing, planned_runs

    lacking, root = missing(experiment), folder_of(experiment)
    runs, to_tune = planned_runs(experiment)

    def print_text() -> None:
        console.print_table(["run", "state", f"folder in {root}"], runs)
        print(f"{len(runs)} runs, {sum(run.state == 'to do' for run in runs)} to do")
        if to_tune:
            print("The loss weights are not tuned yet, so the runs above use the recipe's weights.")

    print_result({"root": str(root), "runs": [run._asdict() for run in runs]}, as_json, print_text)
    for error in lacking:
        _log.warning("%s\n  %s", error.message, error.hint)
