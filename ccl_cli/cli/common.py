"""How commands are declared, how they print results, and how names complete."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ccl_cli.utils import console

DATA, TEACHERS, OPTIMISATION, RUNTIME, OUTPUT = "Data", "Teachers", "Optimisation", "Runtime", "Output"

_VERBOSITY = {
    "quiet": typer.Option("-q", "--quiet", help="Show results and errors only.", rich_help_panel=OUTPUT),
    "verbose": typer.Option("-v", "--verbose", help="Show more detail.", rich_help_panel=OUTPUT),
    "debug": typer.Option("--debug", help="Show tracebacks too.", rich_help_panel=OUTPUT),
}
data_option, teacher_option, optimisation_option, runtime_option, output_option = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in (DATA, TEACHERS, OPTIMISATION, RUNTIME, OUTPUT)
)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def with_verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``-q``, ``-v`` and ``--debug``, which set up logging before it runs."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool, verbose: bool, debug: bool, **kwargs: Any) -> Any:
        console.configure(quiet, verbose, debug)
        return command(*args, **kwargs)

    signature = inspect.signature(command, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, kind, default=False, annotation=Annotated[bool, option])
        for name, option in _VERBOSITY.items()
    ]
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def examples(*lines: str) -> str:
    """The block of examples at the end of a command's help."""
    return "[bold]Examples[/bold]\n" + "\n".join(f"  {line}" for line in lines)


def command(app: typer.Typer, name: str, *lines: str) -> Callable[[_Function], _Function]:
    """Add a function to a group as a command with examples, ``-q``, ``-v`` and ``--debug``."""

    def add(function: _Function) -> _Function:
        app.command(name, epilog=examples(*lines))(with_verbosity(function))
        return function

    return add


def show_help(ctx: typer.Context) -> None:
    """A group without a command shows its help."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def group(help: str, *lines: str) -> typer.Typer:
    """A group of commands with its examples."""
    return typer.Typer(
        help=help,
        add_completion=False,
        epilog=examples(*lines),
        callback=with_verbosity(show_help),
        invoke_without_command=True,
        rich_markup_mode="rich",
    )


def start_processes(count: int) -> None:
    """For ``--num-processes``: run this command as several processes instead, unless it is one of them.

    A task of a Slurm step becomes one of them too. Call it before torch is imported.

    Raises:
        typer.Exit: they have ended, with their exit code.
        UsageError: ``count`` is above 1 in one of several Slurm tasks.
    """
    from ccl_cli.utils.processes.launch import launch, wanted
    from ccl_cli.utils.processes.slurm_step import join_step

    if join_step(count):
        console.configure()  # of several processes only the first one logs
    elif wanted(count):
        raise typer.Exit(launch(count, sys.argv[1:]))


def executor_flags(name: str | None, jobs: int | None = None) -> dict[str, Any]:
    """The section ``executor`` as this machine and a command line have it, for ``load_recipe``.

    ``CCL_EXECUTOR_PARTITION`` stands for ``executor.partition``, and ``CCL_EXECUTOR`` for ``executor.name``.

    Args:
        name: From ``--executor``.
        jobs: From ``--jobs``.
    """
    from ccl_cli.config import yaml_text

    prefix = "CCL_EXECUTOR"
    flags: dict[str, Any] = {"executor.name": name or os.environ.get(prefix) or None, "executor.jobs": jobs}
    for variable, text in os.environ.items():
        key = f"executor.{variable.removeprefix(f'{prefix}_').lower()}"
        if variable.startswith(f"{prefix}_") and text and flags.get(key) is None:
            flags[key] = yaml_text.parse(text, variable) if text.lstrip().startswith("{") else text
    return flags


def print_result(result: Any, as_json: bool, print_text: Callable[[], object]) -> None:
    """Print the result of a command; of several processes only the first one does.

    Args:
        result: Plain values, printed as one JSON document.
        as_json: Whether ``--json`` was given.
        print_text: Prints the same for people.
    """
    if not console.first_process():
        return
    if as_json:
        print(json.dumps(result))
    else:
        print_text()


def print_path(path: Path, as_json: bool) -> None:
    """Print where a command has put its result."""
    print_result({"path": str(path)}, as_json, lambda: print(path))


def complete_recipes(incomplete: str) -> list[str]:
    """Built-in recipes."""
    from ccl_cli.config.load import builtin_recipes

    return [name for name in builtin_recipes() if name.startswith(incomplete)]


def complete_plugins(group: str) -> Callable[[str], list[str]]:
    """Names of one group's plugins, read from the metadata; nothing is imported."""

    def complete(incomplete: str) -> list[str]:
        from ccl_cli import registry

        return [name for name in registry.names(group) if name.startswith(incomplete)]

    return complete
