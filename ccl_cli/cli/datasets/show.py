"""``ccl data show``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import OUTPUT
from ccl_cli.errors import SystemSetupError

EXAMPLES = (
    "ccl data show folder:my_videos",
    "ccl data show ucf51 --teacher audio:cnn14 --teacher image:resnet34 --clips 12",
    "ccl data show synthetic --recipe synthetic --output look.png",
)


def show(
    data: options.RecipeData = None,
    recipe: options.RecipeName = None,
    teacher: options.Teachers = None,
    clips: Annotated[int, typer.Option(min=1, max=64, help="Number of clips.")] = 8,
    output: Annotated[Path, typer.Option(help="Image to write, as PNG.", rich_help_panel=OUTPUT)] = Path(
        "samples.png"
    ),
    set_: options.Overrides = None,
) -> None:
    """Draw training clips and the inputs of each teacher into one image."""
    from ccl_cli.config.load import check_recipe, load_recipe
    from ccl_cli.training.dry_run import draw_samples

    flags = {"data": data, "teachers": teacher}
    if not (recipe or teacher or os.environ.get("CCL_RECIPE")):
        flags["method"] = "baseline"  # needs no teachers
    experiment = load_recipe(recipe, flags, set_ or ())
    check_recipe(experiment)
    try:
        draw_samples(experiment, clips, output)
    except OSError as error:
        raise SystemSetupError(
            f"'{output}' cannot be written: {error.strerror}.",
            "Free some disk space, or write to another path.",
        ) from error
    print(output)
