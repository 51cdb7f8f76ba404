"""The application: its commands, and what stands before them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ccl_cli import __version__, registry
from ccl_cli.cli import evaluate, train
from ccl_cli.cli.common import examples, show_help, with_verbosity
from ccl_cli.cli.plugins import plugins
from ccl_cli.cli.recipes import recipes
from ccl_cli.cli.teachers import teachers

EXPERIMENTS, CATALOGUE, ADDED = "Experiments", "Catalogue", "From plugins"


class Commands(TyperGroup):
    """Our commands, and those that other packages add under ``ccl.commands``, imported when they are run."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Ours first."""
        added = [name for name in registry.names(registry.COMMANDS) if name not in self.commands]
        return [*super().list_commands(ctx), *added]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Ours, or a stand-in that is enough for the list."""
        own = super().get_command(ctx, cmd_name)
        if own or cmd_name not in registry.names(registry.COMMANDS):
            return own
        plugin = registry.find(registry.COMMANDS, cmd_name)
        return TyperCommand(cmd_name, help=f"Added by {plugin.origin}.", rich_help_panel=ADDED)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is about to run: the real one, in place of its stand-in."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.commands or name is None:
            return name, command, rest
        added = registry.load(registry.find(registry.COMMANDS, name))
        return name, typer.main.get_command(added) if isinstance(added, typer.Typer) else added, rest


app = typer.Typer(
    cls=Commands,
    help="Distil frozen teacher networks - audio, image, any - into one small video network.",
    epilog=examples(
        "ccl train --teacher audio:cnn14 --teacher image:resnet34 --data ucf51",
        "ccl eval --retrieval",
        "ccl recipes ls",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
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


app.command("train", epilog=train.EXAMPLES, rich_help_panel=EXPERIMENTS)(train.train)
app.command("eval", epilog=evaluate.EXAMPLES, rich_help_panel=EXPERIMENTS)(evaluate.evaluate)
app.add_typer(recipes, name="recipes", rich_help_panel=CATALOGUE)
app.add_typer(teachers, name="teachers", rich_help_panel=CATALOGUE)
app.add_typer(plugins, name="plugins", rich_help_panel=CATALOGUE)
