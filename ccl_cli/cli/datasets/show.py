"""``ccl data show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import output_option
from ccl_cli.cli.datasets.bench import recipe_of

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
    output: Annotated[Path, output_option(help="Image to write, as PNG.")] = Path("samples.png"),
    set_: options.Overrides = None,
) -> None:
    """Draw training clips and the inputs of each teacher into one image."""
    from ccl_cli.training.dry_run import draw_samples

    draw_samples(recipe_of(recipe, {"data": data, "teachers": teacher}, set_), clips, output)
    print(output)
