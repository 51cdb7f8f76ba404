"""``ccl plugins new``: a package that others can install, with one place to edit.

The texts lie in ``ccl_cli/scaffold/templates``, one folder per kind; ``$name`` stands for what is known here.
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
_RULE = "Write small letters, digits, - and _, a letter first, at most 32"

_WHAT = {"teacher": "teacher", "student": "student", "method": "method", "dataset": "data source"}
_BEGIN = {
    "teacher": f"Put your network into `load_network`, at {MARK} in `$code`: until then it stops there.",
    "student": f"It begins with a few plain blocks; put yours in, at {MARK} in `$code`.",
    "method": f"It begins with a cosine distance; put your own loss in, at {MARK} in `$code`.",
    "dataset": f"It begins with `train.txt` and `test.txt`; let it read your lists, at {MARK} in `$code`.",
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
    """A package that was written.

    Attributes:
        folder: Where it is.
        what: It is: "teacher", "data source", ...
        begin: What to do first, as one sentence.
        commands: What to type then.
    """

    folder: Path
    what: str
    begin: str
    commands: tuple[str, ...]


def write(kind: Kind, name: str, output: Path | None = None) -> Scaffold:
    """Write the package of a new plugin, whole or not at all.

    Args:
        kind: Of plugin.
        name: What users will type: ``modality:name`` of a teacher, else a name.
        output: The folder; default ``ccl-KIND-NAME`` here.

    Raises:
        UsageError: a bad name, one that is taken, or a folder that is in use.
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
            f"'{name}' is no teacher's name: write modality:name.", "For example image:mine, or audio:mine."
        )
    wrong = [part for part in parts if not _PART.fullmatch(part)]
    if wrong or (kind != "teacher" and len(parts) > 1):
        raise UsageError(f"'{name}' cannot be a {_WHAT[kind]}'s name.", f"{_RULE}.")
    if kind == "teacher" and registry.ANY in parts:
        raise UsageError(f"'{registry.ANY}' stands for every name.", "Choose another one.")


def _check_free(kind: Kind, name: str) -> None:
    group = f"ccl.{kind}s"
    try:
        plugin = registry.find(group, name)
    except PluginError:
        return
    if plugin.name.endswith(f".{registry.ANY}") and not _knows(plugin, name):
        return
    raise UsageError(
        f"There is a {_WHAT[kind]} '{name}' already, of {plugin.origin}.", "Choose another name."
    )


def _knows(plugin: registry.Plugin, name: str) -> bool:
    """Whether a teacher that takes any name takes this one: ``image:resnet50`` is one of timm's."""
    modality, _, rest = name.partition(":")
    try:
        registry.load(plugin).weight_files(Spec(modality, rest))
    except PluginError:
        return False
    except CclError:  # it has to say something about this very name
        return True
    return True


def _words(kind: Kind, name: str) -> dict[str, str]:
    """What the templates ask for."""
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
    """The files, by their paths below the folder."""
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
