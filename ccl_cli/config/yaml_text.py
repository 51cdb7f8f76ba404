"""YAML that builds plain values only, reads ``1e-3`` as a number, and refuses a key given twice.

Aliases, tags and deep nesting are refused before a value is built: with aliases a few lines fill the memory.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from ccl_cli.errors import RecipeError

_MAX_DEPTH = 50  # sections and lists within each other
_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HINT = "Quote text that holds YAML's own signs, such as '?' within brackets."


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in names:
                raise ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Sections as blocks, lists on one line."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
for _first in "-+0123456789":  # 12:00:00 is a time, as Slurm has it, and not a number to the base of 60
    _Loader.yaml_implicit_resolvers[_first].insert(
        0, ("tag:yaml.org,2002:str", re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?$"))
    )
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """A file's values, and the line of each key.

    Raises:
        RecipeError: unreadable, not YAML, or not a mapping; the sentence names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from None
    values, node = _load(text, str(path))
    if not isinstance(values, dict | None):
        raise RecipeError(f"{path}: a recipe is made of 'key: value' lines.", "See `ccl recipes show smoke`.")
    return values or {}, dict(_lines(node, ()))


def parse(text: str, source: str) -> Any:
    """One value; ``source`` names it in an error.

    Raises:
        RecipeError: not YAML.
    """
    return _load(text, source)[0]


def parse_own(text: str, source: str) -> Any:
    """Read what :func:`dump` wrote: keys given twice are not refused, in a tenth of the time.

    Raises:
        RecipeError: not YAML.
    """
    with _one_sentence(source):
        _check(text)
        return yaml.load(text, _FAST_LOADER)


def dump(values: dict[str, Any]) -> str:
    """Text that :func:`read` gives back unchanged."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def _load(text: str, source: str) -> tuple[Any, yaml.Node | None]:
    with _one_sentence(source):
        _check(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        return (loader.construct_document(node) if node else None), node


def _check(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _FAST_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases have no place in a recipe", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags have no place in a recipe", event)
        if depth > _MAX_DEPTH:
            raise _refusal(f"more than {_MAX_DEPTH} sections lie within each other", event)


def _refusal(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = event.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


@contextmanager
def _one_sentence(source: str) -> Iterator[None]:
    """Turn an error of the library into one sentence, with the line."""
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise RecipeError(f"{source}{line}: {problem}.", _HINT) from None
    except ValueError as error:  # 2001-99-99 looks like a date
        raise RecipeError(f"{source}: {error}.") from None


def _lines(node: yaml.Node | None, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            keys = (*prefix, str(key.value))
            yield keys, key.start_mark.line + 1
            yield from _lines(value, keys)
