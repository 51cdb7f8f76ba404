"""``ccl bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import OPTIMISATION, RUNTIME, complete_recipes, examples, with_verbosity
from ccl_cli.errors import CclError, UsageError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.config.recipe import Recipe

app = typer.Typer(add_completion=False)
_SEEDS = 1000  # at most, however they are written


@app.command(
    epilog=examples(
        "ccl bench synthetic-bench --dry-run",
        "ccl bench synthetic-bench --seeds 5",
        "ccl bench ucf51-bench --method ccl --method baseline --setup AI",
        "ccl bench ucf51-bench --tune",
    )
)
@with_verbosity
def bench(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Built-in recipe or YAML file with a section `bench`.",
            autocompletion=complete_recipes,
        ),
    ],
    data: options.Data = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="ROW", help="Only these rows; repeat it for more.")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Only these setups, e.g. AI; repeat for more.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N|A,B,C", help="How many seeds, or which.", rich_help_panel=OPTIMISATION),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First choose each method's weight on videos held out of the training split.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = False,
    epochs: options.Epochs = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs at once; default one per GPU, or one on a CPU.", rich_help_panel=RUNTIME
        ),
    ] = None,
    precision: options.Precision = None,
    workers: options.Workers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and which are finished.", rich_help_panel=RUNTIME)
    ] = False,
    name: options.Name = None,
    set_: options.Overrides = None,
) -> None:
    """Train methods by teacher setups by seeds, and print the tables.

    Give the same command again to go on: finished runs are kept, broken ones tried again.
    """
    from ccl_cli.bench import matrix
    from ccl_cli.config.load import load_recipe

    flags: dict[str, Any] = {
        "name": name,
        "data": data,
        "train.epochs": epochs,
        "train.precision": precision,
        "train.workers": workers,
        "bench.seeds": None if seeds is None else parse_seeds(seeds),
    }
    experiment = load_recipe(recipe, flags, set_ or ())
    experiment = matrix.only(experiment, method or (), setup or ())
    if tune:
        experiment = matrix.with_tuning(experiment)
    matrix.check(experiment)
    if dry_run:
        _list(experiment)
        return
    from ccl_cli.bench.run import run_bench
    from ccl_cli.cli.report import show_tables

    outcome = run_bench(experiment, jobs=jobs)
    if set(outcome.folders) - set(outcome.failed):
        show_tables(outcome.folders)
    if outcome.failed:
        raise CclError(
            f"{len(outcome.failed)} of the runs failed.",
            f"Why is in 'log.txt' there, as in '{outcome.failed[0]}'; the same command tries them again.",
        )


def parse_seeds(text: str) -> list[int]:
    """``5`` stands for the seeds 0 to 4; ``3,`` for seed 3 alone.

    Raises:
        UsageError: not numbers, or one of them twice.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    seeds = numbers if "," in text or not numbers else range(min(numbers[0], _SEEDS + 1))
    if len(seeds) > _SEEDS:
        raise UsageError(f"--seeds {text}: more than {_SEEDS:,} seeds.", "For example 5, or 0,1,2.")
    if not seeds or min(seeds) < 0:
        raise UsageError(f"--seeds {text}: neither a number of seeds nor a list.", "For example 5, or 0,1,2.")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text}: a seed is named twice.", "Name each once.")
    return list(seeds)


def _list(experiment: Recipe) -> None:
    from ccl_cli.bench import matrix
    from ccl_cli.bench.run import best, folder_of, scores, tuning_cells, unfinished

    root = folder_of(experiment)
    tuning = tuning_cells(experiment)
    to_tune = unfinished(root, tuning)
    factors = {} if to_tune else best(scores(root, tuning))
    cells = tuning + matrix.final_cells(experiment, factors)
    todo = {cell.folder for cell in unfinished(root, cells)}
    rows = [(cell.label, "to do" if cell.folder in todo else "finished", cell.folder) for cell in cells]
    console.print_table(["run", "state", f"folder in {root}"], rows)
    print(f"{len(cells)} runs, {len(todo)} to do")
    if to_tune:
        print("The weights are not chosen yet: the runs of the tables are listed with those of the recipe.")
