"""What several commands share: verbosity, help blocks, completion of names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ccl_cli.utils import console

DATA, TEACHERS, OPTIMISATION, RUNTIME, OUTPUT = "Data", "Teachers", "Optimisation", "Runtime", "Output"

_VERBOSITY = {
    "quiet": typer.Option("-q", "--quiet", help="Show results and errors only.", rich_help_panel=OUTPUT),
    "verbose": typer.Option("-v", "--verbose", help="Show more detail.", rich_help_panel=OUTPUT),
    "debug": typer.Option("--debug", help="Show tracebacks too.", rich_help_panel=OUTPUT),
}


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
        callback=show_help,
        invoke_without_command=True,
        rich_markup_mode="rich",
    )


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
