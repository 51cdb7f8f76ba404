"""``ccl plugins new``: create an installable package for a new plugin.

``ccl_cli/scaffold/templates`` has one folder of templates per kind of plugin; ``$name`` is a placeholder.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
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
    "teacher": f"Return your network from `load_network`, at {MARK} in `$code`. It raises an error until "
    "then.",
    "student": f"Replace the example blocks with your network, at {MARK} in `$code`.",
    "method": f"Replace the example cosine loss with your loss, at {MARK} in `$code`.",
    "dataset": f"Replace the example that reads `train.txt` and `test.txt` with your own, at {MARK} in "
    "`$code`.",
}
_TRY = {
    "teacher": ("ccl plugins check $label", "ccl train --teacher $label --data folder:my_videos"),
    "student": ("ccl plugins check $label", "ccl train --recipe smoke --student $label"),
    "method": ("ccl plugins check $label", "ccl train --recipe smoke --method $label"),
    "dataset": (
        "ccl plugins check $label:my_videos",
        "ccl train --data $label:my_videos --teacher image:resnet34",
    ),
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
    install = f"pip install -e {shlex.quote(str(folder))}"
    tries = tuple(Template(line).substitute(words) for line in _TRY[kind])
    begin = Template(_BEGIN[kind])
    inside = "\n".join(("pip install -e '.[dev]'", *tries, "python -m pytest"))
    readme = {"begin": begin.substitute(code=code), "commands": inside}
    with atomic_folder(folder) as temporary:
        for path, text in _texts(kind, code, words | readme).items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8")
    return Scaffold(folder, _WHAT[kind], begin.substitute(code=folder / code), (install, *tries))


def _check_name(kind: Kind, name: str) -> None:
    parts = name.split(":")
    if kind == "teacher" and len(parts) != 2:
        raise UsageError(
            f"'{name}' is not a valid teacher name.",
            "Use modality:name, for example image:mine or audio:mine.",
        )
    wrong = [part for part in parts if not _PART.fullmatch(part)]
    if wrong or (kind != "teacher" and len(parts) > 1):
        raise UsageError(f"'{name}' is not a valid {_WHAT[kind]} name.", f"{_RULE}.")
    if kind == "teacher" and registry.ANY in parts:
        raise UsageError(f"'{registry.ANY}' is reserved for any name.", "Choose another name.")


def _check_free(kind: Kind, name: str) -> None:
    group = f"ccl.{kind}s"
    try:
        plugin = registry.find(group, name)
    except PluginError:
        return
    if plugin.name.endswith(f".{registry.ANY}") and not _knows(plugin, name):
        return
    raise UsageError(
        f"The {_WHAT[kind]} '{name}' already exists, in {plugin.origin}.", "Choose another name."
    )


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


def _words(kind: Kind, name: str) -> dict[str, str]:
    """Values of the placeholders in the templates."""
    modality, _, short = name.rpartition(":")
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
        "modality": modality,
        "entry": f"{modality}.{short}" if modality else short,
        "group": f"ccl.{kind}s",
        "what": _WHAT[kind],
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "target": targets[kind],
    }


def _texts(kind: Kind, code: str, words: Mapping[str, str]) -> dict[str, str]:
    """Contents of the files by path."""
    body = "code"
    if kind == "teacher":
        body = "sound" if words["modality"] == "audio" else "frame"
    templates = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        code: f"{kind}/{body}.py.txt",
        "tests/test_contract.py": f"{kind}/test.py.txt",
    }
    here = files(__name__) / "templates"
    filled = {
        path: Template((here / template).read_text(encoding="utf-8")).substitute(words)
        for path, template in templates.items()
    }
    return filled | {code.replace("__init__.py", "py.typed"): ""}
