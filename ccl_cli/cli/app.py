"""The application: its commands, each imported when it runs, and what stands before them."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ccl_cli import __version__, registry
from ccl_cli.cli.common import examples, show_help, with_verbosity

EXPERIMENTS, USE, CATALOGUE, ADDED = "Experiments", "Use a model", "Catalogue", "From plugins"

# Name: module and attribute, panel, one line of help.
OWN = {
    "demo": ("demo:app", EXPERIMENTS, "See the paper's claim tested on this machine, offline."),
    "train": ("train:app", EXPERIMENTS, "Train a video student with any number of frozen teachers."),
    "eval": (
        "evaluate:app",
        EXPERIMENTS,
        "Evaluate a trained student: recognition, retrieval and probes, in percent.",
    ),
    "bench": ("bench:app", EXPERIMENTS, "Train methods by teacher setups by seeds, and print the tables."),
    "report": ("report:app", EXPERIMENTS, "Tables, comparisons and pictures of what runs have reached."),
    "predict": ("videos.predict:app", USE, "Name the classes of video files, with their probabilities."),
    "embed": ("videos.embed:app", USE, "Write a trained student's features of video files to a file."),
    "index": ("videos.index:app", USE, "Keep the features of your videos in a library, for ccl search."),
    "search": ("videos.search:app", USE, "Find the videos of a library that are nearest to some."),
    "model": ("model:app", USE, "Export, describe, publish and download models."),
    "data": ("datasets:app", CATALOGUE, "List, show, prepare, check, pack and measure data sets."),
    "recipes": (
        "catalogue.recipes:app",
        CATALOGUE,
        "List, show and check recipes: experiments as YAML files.",
    ),
    "teachers": ("teachers:app", CATALOGUE, "List, describe, download, probe and fit teachers."),
    "students": (
        "catalogue.students:app",
        CATALOGUE,
        "List students, describe them, and how large they are.",
    ),
    "methods": ("catalogue.methods:app", CATALOGUE, "List distillation methods, their papers and options."),
    "cache": ("cache:app", CATALOGUE, "Compute frozen teachers' embeddings once; ccl train reads what fits."),
    "doctor": ("catalogue.doctor:app", CATALOGUE, "Tell what this machine and its installation can do."),
    "plugins": ("catalogue.plugins:app", CATALOGUE, "List, write and check plugins."),
}


class Commands(TyperGroup):
    """Our commands, then those that other packages add under ``ccl.commands``.

    Until one of them runs, a stand-in shows its line in the help.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: _stand_in(name, text, panel) for name, (_, panel, text) in OWN.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        """Ours first."""
        return [*OWN, *(name for name in registry.names(registry.COMMANDS) if name not in OWN)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in, or None."""
        if cmd_name in OWN or cmd_name not in registry.names(registry.COMMANDS):
            return super().get_command(ctx, cmd_name)
        plugin = registry.find(registry.COMMANDS, cmd_name)
        return _stand_in(cmd_name, f"Added by {plugin.origin}.", ADDED)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is about to run: the real one."""
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
        module, _, attribute = OWN[name][0].partition(":")
        command = getattr(importlib.import_module(f"ccl_cli.cli.{module}"), attribute)
    else:
        command = registry.load(registry.find(registry.COMMANDS, name))
    return typer.main.get_command(command) if isinstance(command, typer.Typer) else command


def _suggestion(typed: str) -> str:
    """The commands that a typing error may mean: ``ccl probe`` is ``ccl teachers probe``."""
    paths = {name: [name] for name in OWN}
    for name in OWN:
        for inner in getattr(_real(name), "commands", ()):
            paths.setdefault(inner, []).append(f"{name} {inner}")
    near = get_close_matches(typed, paths, n=1)
    return f" Did you mean {' or '.join(map(repr, paths[near[0]]))}?" if near else ""


app = typer.Typer(
    cls=Commands,
    help="Distil frozen teacher networks - audio, image, any - into one small video network.",
    epilog=examples(
        "ccl demo",
        "ccl train --teacher audio:cnn14 --teacher image:resnet34 --data ucf51",
        "ccl eval --retrieval",
        "ccl recipes ls",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ccl {__version__}")
        raise typer.Exit


@app.callback()
@with_verbosity
def _before(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    show_help(ctx)
