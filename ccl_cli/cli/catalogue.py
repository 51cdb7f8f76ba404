"""``ccl students ls`` and ``ccl methods ls``: what there is to choose from."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer

from ccl_cli.cli import options, plugins
from ccl_cli.cli.common import examples, group

students_app = group(
    "List students, and how large they are.",
    "ccl students ls",
    "ccl students ls --load",
    "ccl plugins info students x3d_s",
)
methods_app = group(
    "List distillation methods, their papers and options.", "ccl methods ls", "ccl plugins info methods ccl"
)

_CLASSES = 400  # of Kinetics, for which papers count parameters
_CLIP = (1, 3, 16, 112, 112)
_log = logging.getLogger("ccl")


@students_app.command(
    "ls", epilog=examples("ccl students ls", "ccl students ls --load", "ccl students ls --json")
)
def list_students(
    load: Annotated[
        bool,
        typer.Option(
            "--load",
            help="Build each one without weights: parameters (400 classes) and GFLOP of a clip of 16 frames "
            "at 112 pixels, a multiplication with its addition counted once. Takes some seconds for each.",
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List students with the package each comes from; --load also shows how large they are."""
    plugins.show(["students"], load, as_json=as_json, describe=_size)


@methods_app.command("ls", epilog=examples("ccl methods ls", "ccl methods ls --json"))
def list_methods(as_json: options.AsJson = False) -> None:
    """List distillation methods with their papers; --json has their options too."""
    plugins.show(["methods"], load=True, as_json=as_json, describe=_paper)


def _size(factory: Any) -> dict[str, Any]:
    """Parameters and cost of a network that has no storage."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.device("meta"), torch.no_grad():
            student = factory(_CLASSES).eval()
            with FlopCounterMode(display=False) as counter:
                student(torch.empty(_CLIP))
    except Exception as error:  # somebody else's network need not work without storage
        _log.debug("The size of %s is not known: %s", factory, error)
        return {}
    parameters = sum(parameter.numel() for parameter in student.parameters())
    return {"parameters": parameters, "gflop": round(counter.get_total_flops() / 2e9, 2)}


def _paper(method: Any) -> dict[str, Any]:
    fields = method.Options.model_fields.items()
    described = {name: field.description or "" for name, field in fields}
    return {"paper": getattr(method, "paper", ""), "options": described}
