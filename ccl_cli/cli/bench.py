"""``ccl bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import (
    command,
    complete_recipes,
    executor_flags,
    optimisation_option,
    print_result,
    runtime_option,
)
from ccl_cli.errors import CclError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.config.recipe import Recipe

app = typer.Typer(add_completion=False)

BenchRecipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Built-in recipe or YAML file with a section `bench`.",
        autocompletion=complete_recipes,
    ),
]
Rows = Annotated[list[str] | None, typer.Option(metavar="ROW", help="Only these rows; repeat it for more.")]
Setups = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Only these setups, e.g. AI; repeat for more.")
]
Tune = Annotated[
    bool,
    optimisation_option(
        "--tune", help="First choose each method's weight on videos held out of the training split."
    ),
]
Jobs = Annotated[
    int | None, runtime_option(min=1, help="Runs at once; default one per GPU, or one on a CPU.")
]
ListRuns = Annotated[bool, runtime_option("--dry-run", help="List the runs and which are finished.")]


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
    """Train methods by teacher setups by seeds, and print the tables.

    Give the same command again to go on: finished runs are kept, broken ones tried again. On several machines
    with one folder of runs it shares them.
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
    folders, failed = ([str(folder) for folder in some] for some in (outcome.folders, outcome.failed))
    tables = outcome.folders if set(folders) - set(failed) else []
    print_result({"runs": folders, "failed": failed}, as_json, lambda: print_tables(tables))
    if outcome.failed:
        raise CclError(
            f"{len(outcome.failed)} of the runs failed.",
            f"Why is in 'log.txt' there, as in '{outcome.failed[0]}'; the same command tries them again.",
        )


def _print_plan(experiment: Recipe, as_json: bool) -> None:
    from ccl_cli.bench.plan import planned_runs
    from ccl_cli.bench.run import folder_of

    root = folder_of(experiment)
    runs, to_tune = planned_runs(experiment)

    def print_text() -> None:
        console.print_table(["run", "state", f"folder in {root}"], runs)
        print(f"{len(runs)} runs, {sum(run.state == 'to do' for run in runs)} to do")
        if to_tune:
            print("The weights are not chosen yet: the runs of the tables have those of the recipe.")

    print_result({"root": str(root), "runs": [run._asdict() for run in runs]}, as_json, print_text)
