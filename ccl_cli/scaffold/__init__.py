"""``ccl plugins new``: create an installable package for a new plugin.

``ccl_cli/scaffold/templates`` has one folder of templates per kind of plugin; ``$name`` is a placeholder.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from ccl_cli import registry
from ccl_cli.config.spec import Spec
from ccl_cli.errors import CclError, PluginError, UsageError
from ccl_cli.registry import Kind
from ccl_cli.utils.files import atomic_folder

MARK = "EDIT HERE"
_PART = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_RULE = "Use at most 32 lowercase letters, digits, - and _, starting with a letter"

_WHAT = {"teacher": "teacher", "student": "student", "method": "method", "dataset": "data source"}
_BEGIN = {
    "teacher": "Return your network from `load_network`, at {} in `{}`. It raises an error until then.",
    "student": "Replace the example blocks with your network, at {} in `{}`.",
    "method": "Replace the example cosine loss with your loss, at {} in `{}`.",
    "dataset": "Replace the example that reads `train.txt` and `test.txt` with your own, at {} in `{}`.",
}
_TRY = {
    "teacher": ("ccl plugins check {}", "ccl train --teacher {} --data folder:my_videos"),
    "student": ("ccl plugins check {}", "ccl train --recipe smoke --student {}"),
    "method": ("ccl plugins check {}", "ccl train --recipe smoke --method {}"),
    "dataset": ("ccl plugins check {}:my_videos", "ccl train --data {}:my_videos --teacher image:resnet34"),
}


@dataclass(frozen=True)
class Scaffold:
    """A package that was created.

    Attributes:
        folder: Path of the package.
        what: Kind of plugin in words: "teacher", "data source", ...
        begin: First step, as one sentence.
        commands: Commands to run afterwards.
    """

    folder: Path
    what: str
    begin: str
    commands: tuple[str, ...]


def write(kind: Kind, name: str, output: Path | None = None) -> Scaffold:
    """Create the package of a new plugin atomically.

    Args:
        kind: Kind of plugin.
        name: Name on the command line: ``modality:name`` for a teacher.
        output: Folder of the package. Default: ``ccl-KIND-NAME`` in the working directory.

    Raises:
        UsageError: the name is invalid or taken, or the folder is not empty.
    """
    _check_name(kind, name)
    _check_free(kind, name)
    words = _words(kind, name)
    folder = output or Path(words["distribution"])
    code = f"src/{words['package']}/__init__.py"
    tries = tuple(line.format(name) for line in _TRY[kind])
    words["begin"] = _BEGIN[kind].format(MARK, code)
    words["commands"] = "\n".join(("pip install -e '.[dev]'", *tries, "python -m pytest"))
    templates = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        code: f"{kind}/{_code_template(kind, name)}.py.txt",
        "tests/test_contract.py": f"{kind}/test.py.txt",
    }
    with atomic_folder(folder) as temporary:
        for path, template in templates.items():
            text = (files(__name__) / "templates" / template).read_text(encoding="utf-8")
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(Template(text).substitute(words), encoding="utf-8")
        (temporary / code).with_name("py.typed").touch()
    install = f"pip install -e {shlex.quote(str(folder))}"
    return Scaffold(folder, _WHAT[kind], _BEGIN[kind].format(MARK, folder / code), (install, *tries))


def _check_name(kind: Kind, name: str) -> None:
    parts = name.split(":")
    if len(parts) != (2 if kind == "teacher" else 1) or not all(map(_PART.fullmatch, parts)):
        example = "Write modality:name, for example image:mine. " if kind == "teacher" else ""
        raise UsageError(f"'{name}' is not a valid {_WHAT[kind]} name.", f"{example}{_RULE}.")
    if kind == "teacher" and registry.ANY in parts:
        raise UsageError(f"'{registry.ANY}' is reserved for any name.", "Choose another name.")


def _check_free(kind: Kind, name: str) -> None:
    try:
        plugin = registry.find(f"ccl.{kind}s", name)
    except PluginError:
        return
    if not plugin.name.endswith(f".{registry.ANY}") or _knows(plugin, name):
        where = f"The {_WHAT[kind]} '{name}' already exists, in {plugin.origin}."
        raise UsageError(where, "Choose another name.")


def _knows(plugin: registry.Plugin, name: str) -> bool:
    """Whether a teacher with a wildcard name accepts this name, as timm's does ``image:resnet50``."""
    modality, _, rest = name.partition(":")
    try:
        registry.load(plugin).weight_files(Spec(modality, rest))
    except PluginError:
        return False
    except CclError:  # the teacher knows the name
        return True
    return True


def _code_template(kind: Kind, name: str) -> str:
    if kind != "teacher":
        return "code"
    return "sound" if name.startswith("audio:") else "frame"


def _words(kind: Kind, name: str) -> dict[str, str]:
    """Values of the placeholders in the templates."""
    distribution = "-".join(("ccl", kind, *re.findall(r"[a-z0-9]+", name)))
    camel = "".join(part.capitalize() for part in re.split(r"[:_-]+", name))
    targets = {
        "teacher": camel if camel.endswith("Teacher") else f"{camel}Teacher",
        "method": f"{camel}Method",
        "student": "build",
        "dataset": "load",
    }
    return {
        "label": name,
        "modality": name.partition(":")[0],
        "entry": name.replace(":", "."),
        "group": f"ccl.{kind}s",
        "what": _WHAT[kind],
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "target": targets[kind],
    }
