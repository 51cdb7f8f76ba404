"""Helpers for declaring commands, printing results and completing names."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperArgument

from ccl_cli.errors import CclError, UsageError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.config.recipe import Executor
    from ccl_cli.executors.part import Part

DATA, TEACHERS, OPTIMISATION, RUNTIME, OUTPUT = "Data", "Teachers", "Optimisation", "Runtime", "Output"

_VERBOSITY = {
    "quiet": typer.Option("-q", "--quiet", help="Print results and errors only.", rich_help_panel=OUTPUT),
    "verbose": typer.Option("-v", "--verbose", help="Print more details.", rich_help_panel=OUTPUT),
    "debug": typer.Option("--debug", help="Print tracebacks of errors.", rich_help_panel=OUTPUT),
}
data_option, teacher_option, optimisation_option, runtime_option, output_option = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in (DATA, TEACHERS, OPTIMISATION, RUNTIME, OUTPUT)
)
HELP = ["-h", "--help"]
_METAVARS = {"bool": "", "int": "N", "float": "X", "str": "TEXT"}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def with_verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``-q``, ``-v`` and ``--debug`` to a command; they configure logging before it runs."""

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
    """Format the examples at the end of a command's help."""
    return "[bold]Examples[/bold]\n" + "\n".join(f"  {line}" for line in lines)


def command(app: typer.Typer, name: str, *lines: str) -> Callable[[_Function], _Function]:
    """Register a function as a command with examples, ``-q``, ``-v`` and ``--debug``."""

    def add(function: _Function) -> _Function:
        app.command(name, epilog=examples(*lines))(with_verbosity(function))
        return function

    return add


def show_help(ctx: typer.Context) -> None:
    """Show the help if a group is called without a command."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def group(help: str, *lines: str) -> typer.Typer:
    """Create a group of commands with examples."""
    return typer.Typer(
        help=help,
        add_completion=False,
        epilog=examples(*lines),
        callback=with_verbosity(show_help),
        invoke_without_command=True,
        rich_markup_mode="rich",
    )


def simplify_help(command: Any) -> Any:
    """Simplify the help of a command and of its subcommands.

    Typer shows ``<bool>`` beside every flag and ``<str>`` beside every argument, and it keeps the line breaks
    of docstrings, whatever the width of the terminal.
    """
    for inner in getattr(command, "commands", {}).values():
        simplify_help(inner)
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for parameter in command.get_params(typer.Context(command, help_option_names=HELP)):
        simplify_parameter(parameter)
    return command


def simplify_parameter(parameter: Any) -> Any:
    """Show no type beside flags and arguments, and N, X or TEXT beside other options without a metavar."""
    if isinstance(parameter, TyperArgument):
        parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
    elif parameter.metavar is None:
        parameter.metavar = _METAVARS.get(parameter.bare_type())
    return parameter


def start_processes(count: int, *others: str) -> None:
    """Implement ``--num-processes``: run this command in several processes, unless this is one of them.

    A task of a Slurm step also becomes one of the processes. Call this before torch is imported.

    Args:
        count: Value of ``--num-processes``.
        others: Given options that exclude each other and several processes.

    Raises:
        typer.Exit: the processes have ended; carries their exit code.
        UsageError: the options exclude each other, or ``count`` is above 1 within a Slurm step of several
            tasks.
    """
    from ccl_cli.utils.processes.launch import launch, must_launch
    from ccl_cli.utils.processes.slurm_step import join_step

    given = [*others, *(["--num-processes"] if count > 1 else [])]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other.", "Use only one of them.")
    if join_step(count):
        console.configure()  # only the first of several processes logs
    elif must_launch(count):
        raise typer.Exit(launch(count, sys.argv[1:]))
    if others and launched():
        raise UsageError(
            f"{others[0]} requires a single process, but a launcher has started several.",
            "Omit it: the processes share the videos.",
        )


def launched() -> bool:
    """Return whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def executor_flags(name: str | None, jobs: int | None = None) -> dict[str, Any]:
    """Return the ``executor`` settings from the environment and the command line, for ``load_recipe``.

    ``CCL_EXECUTOR_PARTITION`` sets ``executor.partition``, and ``CCL_EXECUTOR`` sets ``executor.name``.

    Args:
        name: Value of ``--executor``.
        jobs: Value of ``--jobs``.
    """
    from ccl_cli.config import yaml_text

    prefix = "CCL_EXECUTOR"
    flags: dict[str, Any] = {"executor.name": name or os.environ.get(prefix) or None, "executor.jobs": jobs}
    for variable, text in os.environ.items():
        key = f"executor.{variable.removeprefix(f'{prefix}_').lower()}"
        if variable.startswith(f"{prefix}_") and text and flags.get(key) is None:
            flags[key] = yaml_text.parse(text, variable) if text.lstrip().startswith("{") else text
    return flags


def chosen_executor(name: str | None, part: Part | None = None) -> Executor | None:
    """Return the executor of a command's blocks, or None if the command runs everything itself.

    Args:
        name: Value of ``--executor``.
        part: Value of ``--part``, for commands that divide their blocks into parts.

    Raises:
        PluginError: the executor does not exist.
    """
    from ccl_cli import registry
    from ccl_cli.config.load import load_recipe

    settings = load_recipe(None, executor_flags(name)).executor
    registry.find(registry.EXECUTORS, settings.name)
    divided = part is not None and part.parts > 1
    return settings if name or divided or settings.name != "local" else None


def share_videos(executor: str | None, num_processes: int, part: Part | None = None) -> Executor | None:
    """Implement ``--executor`` and ``--num-processes`` of a command that reads many videos.

    Returns:
        The executor of blocks of videos, or None if the processes of this command share the videos.

    Raises:
        UsageError: an executor or a part, and several processes were requested.

    See also :func:`chosen_executor` and :func:`start_processes`.
    """
    chosen = chosen_executor(executor, part)
    options = {"--executor": executor, "--part": part and part.parts > 1}
    start_processes(num_processes, *[option for option, given in options.items() if given][:1])
    return None if launched() else chosen


def print_result(result: Any, as_json: bool, print_text: Callable[[], object]) -> None:
    """Print the result of a command, on the first of several processes only.

    Args:
        result: JSON-serialisable values, printed as one document.
        as_json: Whether ``--json`` was given.
        print_text: Prints the same result as text.
    """
    if not console.first_process():
        return
    if as_json:
        print(json.dumps(result))
    else:
        print_text()


def print_path(path: Path, as_json: bool) -> None:
    """Print the path of a command's result."""
    print_result({"path": str(path)}, as_json, lambda: print(path))


def print_paths(paths: Sequence[str], as_json: bool) -> None:
    """Print the paths of a command's results, one per line."""
    print_result({"paths": paths}, as_json, lambda: print(*paths, sep="\n", end="\n" if paths else ""))


def refuse_failed(runs: Sequence[Path]) -> None:
    """Raise an error if runs of a benchmark have failed."""
    if runs:
        raise CclError(
            f"Failed runs: {len(runs)}.",
            f"See 'log.txt' in each run's folder, such as '{runs[0]}'. Run the same command to retry.",
        )


def plugin_argument(group: str, help: str, metavar: str = "NAME") -> Any:
    """Declare the name of a plugin of a group as an argument."""
    complete = complete_plugins(group)
    return typer.Argument(metavar=metavar, help=help, autocompletion=complete, show_default=False)


def complete_recipes(incomplete: str) -> list[str]:
    """Complete the names of built-in recipes."""
    from ccl_cli.config.load import builtin_recipes

    return [name for name in builtin_recipes() if name.startswith(incomplete)]


def complete_plugins(group: str) -> Callable[[str], list[str]]:
    """Complete the names of a group's plugins from package metadata, without importing them."""

    def complete(incomplete: str) -> list[str]:
        from ccl_cli import registry

        return [name for name in registry.names(group) if name.startswith(incomplete)]

    return complete
