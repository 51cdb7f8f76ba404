"""``ccl recipes``: list, show and check."""

from __future__ import annotations

from typing import Annotated

import typer

from ccl_cli import console
from ccl_cli.cli import options
from ccl_cli.cli.common import complete_recipes, examples, group
from ccl_cli.errors import CclError, Several

app = group(
    "List, show and check recipes: experiments as YAML files.",
    "ccl recipes ls",
    "ccl recipes show ucf51-ccl-ai > mine.yaml",
    "ccl recipes check mine.yaml",
)


@app.command("ls", epilog=examples("ccl recipes ls"))
def list_recipes() -> None:
    """List the built-in recipes."""
    from ccl_cli.recipe_files import builtin_recipes, load_recipe

    loaded = {name: load_recipe(name) for name in builtin_recipes()}
    console.print_table(
        ["name", "data", "method", "description"],
        [
            (name, recipe.data or "-", recipe.method_label, recipe.description)
            for name, recipe in loaded.items()
        ],
    )


@app.command(
    "show",
    epilog=examples("ccl recipes show smoke", "ccl recipes show smoke --set train.epochs=1 > mine.yaml"),
)
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Recipe.", autocompletion=complete_recipes)
    ],
    set_: options.Overrides = None,
) -> None:
    """Print a recipe with every default written out."""
    from ccl_cli.recipe_files import load_recipe, to_yaml

    print(to_yaml(load_recipe(name, overrides=set_ or ())), end="")


@app.command("check", epilog=examples("ccl recipes check", "ccl recipes check mine.yaml other.yaml"))
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|FILE",
            help="Recipes; all built-in ones if none.",
            autocompletion=complete_recipes,
        ),
    ] = None,
) -> None:
    """Validate recipes: keys, values, methods' options, and that every plugin they name is installed."""
    from ccl_cli.bench import matrix
    from ccl_cli.recipe_files import builtin_recipes, check_recipe, load_recipe

    errors: list[CclError] = []
    for name in names or builtin_recipes():
        try:
            recipe = load_recipe(name)
            check_recipe(recipe)
            if recipe.bench:
                matrix.check(recipe)
            print(f"{name}: ok")
        except CclError as error:
            found = error.errors if isinstance(error, Several) else [error]
            errors += [type(each)(f"{name}: {each.message}", each.hint) for each in found]
    if errors:
        raise Several(errors)
