"""``ccl data bench``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from ccl_cli.cli import options
from ccl_cli.cli.common import print_result, runtime_option
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.config.recipe import Recipe

EXAMPLES = (
    "ccl data bench folder:my_videos",
    "ccl data bench shards:packed --recipe mine.yaml --workers 8",
    "ccl data bench ucf51 --teacher audio:cnn14 --clips-per-second 300",
)


def bench(
    data: options.RecipeData = None,
    recipe: options.RecipeName = None,
    teacher: options.Teachers = None,
    workers: options.Workers = None,
    clips_per_second: Annotated[
        float | None,
        runtime_option(
            min=0.001, help="Training throughput of your GPU. Default: time a few steps on this machine."
        ),
    ] = None,
    seconds: Annotated[float, runtime_option(min=0.1, help="Duration of each measurement.")] = 10.0,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure how fast a data set is read, and whether training would wait for data."""
    from ccl_cli.training.input_bench import bench_input

    experiment = recipe_of(recipe, {"data": data, "teachers": teacher, "train.workers": workers}, set_)
    result = bench_input(experiment, seconds=seconds, clips_per_second=clips_per_second)
    print_result(result, as_json, lambda: _show(result))


def recipe_of(name: str | None, flags: Mapping[str, Any], overrides: Sequence[str] | None) -> Recipe:
    """Load a recipe of which only the data and the inputs of the teachers matter; none are needed."""
    from ccl_cli.config.load import check_recipe, load_recipe

    if not (name or flags["teachers"] or os.environ.get("CCL_RECIPE")):
        flags = {**flags, "method": "baseline"}
    recipe = load_recipe(name, flags, overrides or ())
    check_recipe(recipe)
    return recipe


def _show(result: Mapping[str, Any]) -> None:
    one, every, step = result["worker"], result["workers"], result["step"]
    how = f"{step['device']}, {step['precision']}" if step["measured"] else "as given"
    rows = [
        ("one worker", f"{one['clips_per_s']:.1f}"),
        (f"{every['number']} workers", f"{every['clips_per_s']:.1f}"),
        (f"training ({how})", f"{step['clips_per_s']:.1f}"),
    ]
    console.print_table(["", "clips/s"], rows)
    if not result["data_wait"]:
        print("\nReading is fast enough for training.")
        return
    print(f"\nTraining would wait for data {result['data_wait']:.0%} of the time. To read faster:")
    print("\n".join(f"  {advice}" for advice in result["advice"]))
