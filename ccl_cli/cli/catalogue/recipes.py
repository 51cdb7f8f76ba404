"""``ccl recipes``: list, show and check."""

from __future__ import annotations

from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, complete_recipes, group, print_result
from ccl_cli.errors import CclError, MultipleErrors, UsageError
from ccl_cli.utils import console

app = group(
    "List, show and check recipes, which describe experiments in YAML.",
    "ccl recipes ls",
    "ccl recipes show ucf51 > mine.yaml",
    "ccl recipes check mine.yaml",
)


@command(app, "ls", "ccl recipes ls", "ccl recipes ls ucf51", "ccl recipes ls '*-bench'")
def list_recipes(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN", help="Part of a name, or a glob pattern with * and ?.", show_default=False
        ),
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """List the built-in recipes. Their names begin with the data set."""
    from fnmatch import fnmatchcase

    from ccl_cli.config import yaml_text
    from ccl_cli.config.load import builtin_recipes

    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    files = {name: path for name, path in builtin_recipes().items() if fnmatchcase(name, wanted)}
    if not files:
        raise UsageError(f"No built-in recipe matches '{pattern}'.", "`ccl recipes ls` lists them all.")
    # Every file has its own description, so its parents need not be read.
    rows = [(name, str(yaml_text.read(path)[0].get("description", ""))) for name, path in files.items()]
    result = [{"name": name, "description": description} for name, description in rows]
    print_result(result, as_json, lambda: console.print_table(["name", "description"], rows))


@command(
    app,
    "show",
    "ccl recipes show smoke",
    "ccl recipes show ucf51 --method crd",
    "ccl recipes show smoke --set train.epochs=1 > mine.yaml",
)
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Recipe.", autocompletion=complete_recipes)
    ],
    method: options.Method = None,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Print a recipe as YAML, including all default values."""
    from ccl_cli.config.load import load_recipe, to_yaml

    recipe = load_recipe(name, {"method": method}, set_ or ())
    print_result(recipe.model_dump(mode="json"), as_json, lambda: print(to_yaml(recipe), end=""))


@command(app, "check", "ccl recipes check", "ccl recipes check mine.yaml other.yaml")
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|FILE",
            help="Recipes. Default: all built-in recipes.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Validate recipes: keys, values, method options and installed plugins."""
    from ccl_cli.config.load import builtin_recipes

    results = {name: _errors(name) for name in names or builtin_recipes()}
    valid = {name: not errors for name, errors in results.items()}
    lines = [f"{name}: ok" for name, ok in valid.items() if ok]
    print_result(valid, as_json, lambda: print(*lines, sep="\n", end="\n" if lines else ""))
    errors = [error for each in results.values() for error in each]
    if errors:
        raise MultipleErrors(errors)


def _errors(name: str) -> list[CclError]:
    """The errors of a recipe, each prefixed with the recipe's name."""
    try:
        _check(name)
    except CclError as error:
        errors = error.errors if isinstance(error, MultipleErrors) else [error]
        return [type(each)(f"{name}: {each.message}", each.hint) for each in errors]
    return []


def _check(name: str) -> None:
    """Check a recipe, its variants in `methods`, and every cell of its benchmark."""
    from ccl_cli.bench import matrix
    from ccl_cli.config.load import check_recipe, load_recipe

    recipe = load_recipe(name)
    for method in (None, *recipe.methods):
        check_recipe(load_recipe(name, {"method": method}))
    if recipe.bench:
        matrix.check(recipe)
