"""The Typer application. Each command is imported when it runs."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ccl_cli import __version__, registry
from ccl_cli.cli.common import HELP, examples, show_help, simplify_help, simplify_parameter, with_verbosity

EXPERIMENTS, USE, CATALOGUE, ADDED = "Experiments", "Use a model", "Catalogue", "From plugins"

# Command name: (module with the attribute `app`, help panel, summary).
OWN = {
    "demo": ("demo", EXPERIMENTS, "Reproduce the paper's claim on this machine, offline."),
    "train": ("train", EXPERIMENTS, "Train a video student with any number of frozen teachers."),
    "eval": ("evaluate", EXPERIMENTS, "Evaluate a trained student on recognition, retrieval and probes."),
    "bench": (
        "bench",
        EXPERIMENTS,
        "Train every method with every teacher setup and seed, and print the tables.",
    ),
    "report": (
        "report",
        EXPERIMENTS,
        "Show the results of runs as tables, comparisons, figures and an HTML page.",
    ),
    "predict": ("videos.predict", USE, "Predict the classes of video files."),
    "embed": ("videos.embed", USE, "Extract the features of video files with a trained student."),
    "index": ("videos.index", USE, "Build or update a searchable library of videos."),
    "search": ("videos.search", USE, "Find the videos of a library that are most similar to a query video."),
    "model": ("model", USE, "Export, document, publish and download models."),
    "data": ("datasets", CATALOGUE, "List, show, prepare, check, pack and benchmark data sets."),
    "recipes": (
        "catalogue.recipes",
        CATALOGUE,
        "List, show and check recipes, which describe experiments in YAML.",
    ),
    "teachers": ("teachers", CATALOGUE, "List, describe, download, probe and fine-tune teachers."),
    "students": ("catalogue.students", CATALOGUE, "List and describe student networks."),
    "methods": ("catalogue.methods", CATALOGUE, "List and describe distillation methods."),
    "cache": ("cache", CATALOGUE, "Precompute the embeddings of frozen teachers for training."),
    "doctor": ("catalogue.doctor", CATALOGUE, "Check the installation and the hardware."),
    "plugins": ("catalogue.plugins", CATALOGUE, "List, create and check plugins."),
}


class Commands(TyperGroup):
    """The built-in commands, followed by those that packages register under ``ccl.commands``.

    The help lists placeholders, so a command's module is only imported when the command runs.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: _stand_in(name, text, panel) for name, (_, panel, text) in OWN.items()}

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of ``ccl`` itself."""
        return [simplify_parameter(parameter) for parameter in super().get_params(ctx)]

    def list_commands(self, ctx: Any) -> list[str]:
        """List the built-in commands first."""
        return [*OWN, *(name for name in registry.names(registry.COMMANDS) if name not in OWN)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a placeholder command, or None if the name is unknown."""
        if cmd_name in OWN or cmd_name not in registry.names(registry.COMMANDS):
            return super().get_command(ctx, cmd_name)
        plugin = registry.find(registry.COMMANDS, cmd_name)
        return _stand_in(cmd_name, f"Added by {plugin.origin}.", ADDED)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import and return the command that is about to run."""
        typed = args[0]
        unknown = not typed.startswith("-") and self.get_command(ctx, typed) is None
        if unknown and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{typed}'.{_suggestion(typed)}")
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, stand_in and _real(name or ""), rest


def _stand_in(name: str, text: str, panel: str) -> TyperCommand:
    return TyperCommand(name, help=text, rich_help_panel=panel)


def _real(name: str) -> Any:
    if name in OWN:
        command = importlib.import_module(f"ccl_cli.cli.{OWN[name][0]}").app
    else:
        command = registry.load(registry.find(registry.COMMANDS, name))
    return simplify_help(typer.main.get_command(command)) if isinstance(command, typer.Typer) else command


def _suggestion(typed: str) -> str:
    """Suggest commands for a mistyped name, for example ``teachers probe`` for ``probe``."""
    paths = {name: [name] for name in OWN}
    for name in OWN:
        for inner in getattr(_real(name), "commands", ()):
            paths.setdefault(inner, []).append(f"{name} {inner}")
    near = get_close_matches(typed, paths, n=1)
    return f" Did you mean {' or '.join(map(repr, paths[near[0]]))}?" if near else ""


app = typer.Typer(
    cls=Commands,
    help="Distil frozen teachers of any modality into one small video network.",
    epilog=examples(
        "ccl demo",
        "ccl train --teacher audio:cnn14 --teacher image:resnet34 --data ucf51",
        "ccl eval",
        "ccl recipes ls",
    ),
    context_settings={"help_option_names": HELP},
    invoke_without_command=True,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ccl {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
]


@app.callback()
@with_verbosity
def _before(ctx: typer.Context, version: Version = False) -> None:
    show_help(ctx)
