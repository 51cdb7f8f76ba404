"""Safe YAML: plain values only, ``1e-3`` is a number, and duplicate keys are errors.

Aliases, tags and deep nesting are refused before values are built, because a few aliases can exhaust memory.
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

_MAX_DEPTH = 50  # of nested sections and lists
_FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HINT = "Quote text that contains special characters of YAML, such as '?' within brackets."


class _Loader(_FAST_LOADER):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in names:
                raise ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            names.add(str(key.value))
        return dict(super().construct_mapping(node, deep))


class _Dumper(yaml.SafeDumper):
    """Write sections in block style and lists in flow style."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
for _first in "-+0123456789":  # 12:00:00 is a time of Slurm, not a base-60 number
    _Loader.yaml_implicit_resolvers[_first].insert(
        0, ("tag:yaml.org,2002:str", re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?$"))
    )
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Read a file; return its values and the line of each key. Raises a RecipeError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from None
    values, node = _load(text, str(path))
    if not isinstance(values, dict | None):
        raise RecipeError(
            f"{path}: a recipe must consist of 'key: value' lines.", "See `ccl recipes show smoke`."
        )
    return values or {}, dict(_lines(node, ()))


def parse(text: str, source: str) -> Any:
    """Parse one value; ``source`` describes it in the RecipeError for text that is not YAML."""
    return _load(text, source)[0]


def dump(values: dict[str, Any]) -> str:
    """Serialise values so that :func:`read` returns them unchanged."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def _load(text: str, source: str) -> tuple[Any, yaml.Node | None]:
    with _one_sentence(source):
        _check(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        return (loader.construct_document(node) if node else None), node


def _check(text: str) -> None:
    depth = 0
    event: Any
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        tagged = getattr(event, "tag", None) is not None
        if tagged or isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
            problem = f"a recipe may contain no tags or aliases, and at most {_MAX_DEPTH} levels of nesting"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


@contextmanager
def _one_sentence(source: str) -> Iterator[None]:
    """Convert a parser error to one sentence with the line number."""
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise RecipeError(f"{source}{line}: {problem}.", _HINT) from None
    except ValueError as error:  # for example the invalid date 2001-99-99
        raise RecipeError(f"{source}: {error}.") from None


def _lines(node: yaml.Node | None, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            keys = (*prefix, str(key.value))
            yield keys, key.start_mark.line + 1
            yield from _lines(value, keys)
