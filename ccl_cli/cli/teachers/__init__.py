"""``ccl teachers``: list, describe, download, probe and fine-tune teachers."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

from ccl_cli import registry
from ccl_cli.cli import options
from ccl_cli.cli.catalogue.listing import print_plugin, print_plugins
from ccl_cli.cli.common import command, group, print_result
from ccl_cli.cli.teachers import fit, probe
from ccl_cli.errors import WeightsError

if TYPE_CHECKING:
    from ccl_cli.config.spec import Spec
    from ccl_cli.registry import Plugin
    from ccl_cli.teachers import Teacher

_log = logging.getLogger("ccl")

app = group(
    "List, describe, download, probe and fine-tune teachers.",
    "ccl teachers ls",
    "ccl teachers info audio:cnn14",
    "ccl teachers pull image:resnet34",
    "ccl teachers probe --data ucf51 --teacher audio:cnn14",
    "ccl teachers fit audio:cnn14 --data folder:my_videos --output mine.safetensors",
)


@command(app, "ls", "ccl teachers ls", "ccl teachers ls --load", "ccl teachers ls --json")
def list_teachers(load: options.Load = False, as_json: options.AsJson = False) -> None:
    """List teachers and their packages."""
    print_plugins([registry.TEACHERS], load, as_json)


@command(app, "info", "ccl teachers info audio:cnn14", "ccl teachers info 'audio:cnn14?dim=2048'")
def info(name: options.TeacherName, as_json: options.AsJson = False) -> None:
    """Describe a teacher: modality, embedding dimension, options and weight files."""
    from ccl_cli.teachers.description import describe_network, describe_weights

    plugin, cls, spec = _resolve(name)
    weights = [describe_weights(file, spec) for file in cls.weight_files(spec)]
    network = describe_network(cls, spec)
    print_plugin(plugin, as_json, {"name": spec.label, "modality": spec.kind, **network, "weights": weights})


@command(app, "pull", "ccl teachers pull audio:cnn14")
def pull(name: options.TeacherName, as_json: options.AsJson = False) -> None:
    """Download a teacher's published weights, and verify their checksum."""
    from ccl_cli.teachers import weights
    from ccl_cli.utils.progress import download_bar

    _, cls, spec = _resolve(name)
    files = cls.weight_files(spec)
    if not files:
        _log.info("%s needs no published weights.", spec.label)
    paths = []
    for file in files:
        _log.info("%s from %s (%s)", file.filename, file.address, file.licence or "licence unknown")
        try:
            with download_bar(file.filename) as progress:
                paths.append(str(weights.pull(file, progress)))
        except WeightsError as error:
            if error.hint and len(files) > 1:
                error.hint += f" All {len(files)} files: `ccl teachers info {shlex.quote(str(spec))}`."
            raise
    print_result({"paths": paths}, as_json, lambda: print(*paths, sep="\n", end="\n" if paths else ""))


command(app, "probe", *probe.EXAMPLES)(probe.probe)
command(app, "fit", *fit.EXAMPLES)(fit.fit)


def _resolve(name: str) -> tuple[Plugin, type[Teacher], Spec]:
    from ccl_cli.config.spec import parse_model

    spec = parse_model(name)
    plugin = registry.find(registry.TEACHERS, spec.label)
    return plugin, registry.load(plugin), spec
