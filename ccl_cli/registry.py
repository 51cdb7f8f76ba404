"""Plugin registry based on entry points: listing imports nothing, and plugins are loaded one at a time.

Other packages cannot break ccl. Malformed or half-removed metadata causes one warning that names the package,
and a plugin that fails to import causes an error only where it is requested.
"""

from __future__ import annotations

import configparser
import difflib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from entrypoints import BadEntryPoint, CaseSensitiveConfigParser, Distribution, EntryPoint

from ccl_cli.errors import CclError, PluginError
from ccl_cli.utils.text import in_short

TEACHERS = "ccl.teachers"
STUDENTS = "ccl.students"
METHODS = "ccl.methods"
DATASETS = "ccl.datasets"
COMMANDS = "ccl.commands"
EXECUTORS = "ccl.executors"
GROUPS = (TEACHERS, STUDENTS, METHODS, DATASETS, COMMANDS, EXECUTORS)
Kind = Literal["teacher", "student", "method", "dataset"]  # kinds of plugins with a contract

OWN_DISTRIBUTION = "ccl-cli"
ANY = "any"

# Attributes that a plugin must have, checked when it is loaded.
_CONTRACT = {TEACHERS: ("from_spec", "weight_files"), METHODS: ("Options",)}
_ABSTRACT = "__isabstractmethod__"

_LONGEST = 1000  # characters of a line

_log = logging.getLogger("ccl.registry")


@dataclass(frozen=True)
class Plugin:
    """An entry point of an installed distribution.

    Attributes:
        group: One of ``GROUPS``.
        name: Name in the metadata, e.g. ``audio.cnn14``.
        value: ``module:attribute``.
        distribution: Normalised name of the distribution.
        version: Version of the distribution, if its metadata folder states it.
    """

    group: str
    name: str
    value: str
    distribution: str
    version: str | None

    @property
    def label(self) -> str:
        """Name on the command line: ``ccl``, ``audio:cnn14``, ``timm:<name>``, ``<modality>:precomputed``."""
        kind, dot, name = self.name.partition(".")
        if not dot:
            return self.name
        return f"{'<modality>' if kind == ANY else kind}:{'<name>' if name == ANY else name}"

    @property
    def origin(self) -> str:
        """Name and version of the distribution."""
        return f"{self.distribution} {self.version or '(no version)'}"

    @property
    def importable(self) -> bool:
        """Whether the plugin's top-level module exists; does not import it."""
        try:
            return importlib.util.find_spec(self.value.partition(":")[0].partition(".")[0]) is not None
        except (ImportError, ValueError):
            return False


class Scan(NamedTuple):
    """All plugins, and a message for each entry point or distribution that was ignored."""

    plugins: tuple[Plugin, ...]
    problems: tuple[str, ...]


class Broken(PluginError):
    """A plugin cannot be used.

    Attributes:
        reason: The problem, without the name and package of the plugin.
    """

    def __init__(self, message: str, hint: str | None = None, reason: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


_logged: set[str] = set()  # problems that were reported


def scan() -> Scan:
    """Scan ``sys.path`` for plugins, once per process, and log each problem once."""
    current = _scan(tuple(sys.path))
    for problem in current.problems:
        if problem not in _logged:
            _logged.add(problem)
            _log.warning(problem)
    return current


def problems() -> tuple[str, ...]:
    """Return the problems of :func:`scan` for a caller that shows them; they are not logged again."""
    left_out = _scan(tuple(sys.path)).problems
    _logged.update(left_out)
    return left_out


def plugins(group: str) -> tuple[Plugin, ...]:
    """Return the plugins of a group, sorted by name."""
    return tuple(sorted((p for p in scan().plugins if p.group == group), key=lambda p: p.name))


def names(group: str) -> list[str]:
    """Return the labels of a group's plugins, except those with a placeholder."""
    return [plugin.label for plugin in plugins(group) if "<" not in plugin.label]


def find(group: str, name: str) -> Plugin:
    """Find a plugin by the name that the user typed.

    A name ``m:n`` is looked up as ``m.n``, then ``any.n``, then ``m.any``.

    Raises:
        PluginError: no plugin has this name; the hint suggests the closest one.
    """
    known = {plugin.name: plugin for plugin in plugins(group)}
    for candidate in _candidates(group, name):
        if candidate in known:
            return known[candidate]
    raise _unknown(group, name)


def load(plugin: Plugin) -> Any:
    """Import a plugin and return the object of its entry point.

    Raises:
        PluginError: the import fails, or the object does not have the required attributes.
    """
    try:
        target = EntryPoint.from_string(plugin.value, plugin.name).load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {_one_line(error)}"
        hint = f"Update or uninstall {plugin.distribution}; --debug shows the traceback."
        message = f"{_subject(plugin)} cannot be loaded from '{plugin.value}': {reason}."
        raise Broken(message, hint, reason) from error
    missing = [name for name in _CONTRACT.get(plugin.group, ()) if not hasattr(target, name)]
    abstract = [name for name in dir(target) if getattr(getattr(target, name, None), _ABSTRACT, None) is True]
    if missing or abstract or not callable(target):
        wrong = f"has no {[*missing, *abstract][0]}" if missing or abstract else "cannot be called"
        message = f"{_subject(plugin)} violates its contract: '{plugin.value}' {wrong}."
        raise Broken(message, f"Update or uninstall {plugin.distribution}.", f"'{plugin.value}' {wrong}")
    return target


def _subject(plugin: Plugin) -> str:
    return f"{_kind(plugin.group).capitalize()} '{plugin.label}' of {plugin.origin}"


@contextmanager
def blaming(plugin: Plugin) -> Iterator[None]:
    """Run code of a plugin, and report unexpected exceptions as failures of the plugin.

    Raises:
        PluginError: an unexpected exception; the message names the plugin and its distribution.
    """
    try:
        yield
    except (CclError, OSError):
        raise
    except Exception as error:
        raise PluginError(
            f"{_subject(plugin)} failed: {type(error).__name__}: {_one_line(error)}.",
            "--debug shows the traceback for the author of the plugin.",
        ) from error


@cache
def _scan(folders: tuple[str, ...]) -> Scan:
    problems: list[str] = []
    claims: dict[tuple[str, str], Plugin] = {}
    # Built-in plugins come first, so that other packages cannot take over their names.
    for plugin in sorted(_entries(folders, problems), key=lambda p: p.distribution != OWN_DISTRIBUTION):
        first = claims.setdefault((plugin.group, plugin.name), plugin)
        if first is not plugin:
            problems.append(
                f"{_subject(plugin)} is ignored: {first.origin} already provides that name; "
                "uninstall one of them."
            )
    return Scan(tuple(claims.values()), tuple(in_short(problem, _LONGEST) for problem in problems))


def _entries(folders: Iterable[str], problems: list[str]) -> Iterator[Plugin]:
    # The library stops at the first bad file, so metadata folders are read one by one.
    names: set[str] = set()
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        for info in sorted(folder.glob("*.*-info")):
            distribution = Distribution.from_name_version(info.stem)
            name = re.sub(r"[-_.]+", "-", distribution.name).lower()
            if name in names:  # the first distribution of a name shadows later ones, as for modules
                continue
            try:
                yield from _declared(name, distribution.version, _entry_points(info), problems)
                names.add(name)
            except (OSError, UnicodeError, configparser.Error) as error:
                problems.append(
                    f"{info.stem.replace('-', ' ', 1)}: its entry points cannot be read: {_one_line(error)} "
                    f"({info}). Reinstall or remove it."
                )


def _declared(name: str, version: str | None, text: str, problems: list[str]) -> Iterator[Plugin]:
    if not text:
        return  # creating a parser is slow
    config: configparser.ConfigParser = CaseSensitiveConfigParser(delimiters=("=",))
    config.read_string(text, source="entry_points.txt")
    for group in filter(config.has_section, GROUPS):
        for key, value in config.items(group, raw=True):
            plugin = Plugin(group, key, value, name, version)
            try:
                EntryPoint.from_string(value, key)
            except BadEntryPoint:
                problems.append(
                    f"{plugin.origin}: '{key} = {_one_line(value)}' is not a valid entry point; ignored."
                )
            else:
                yield plugin


def _entry_points(info: Path) -> str:
    """Read ``entry_points.txt``; return "" if it is missing or unrelated to ccl."""
    try:
        raw = (info / "entry_points.txt").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if b"ccl." not in raw.replace(b"\0", b""):  # the file may be UTF-16 by mistake
        return ""
    if info.name.startswith("~") or not any((info / each).exists() for each in ("METADATA", "PKG-INFO")):
        raise configparser.Error("the package is only partly uninstalled")
    if max(map(len, raw.splitlines())) > _LONGEST:  # parsing it would take seconds
        raise configparser.Error(f"a line is longer than {_LONGEST} characters")
    return raw.decode("utf-8")


def _candidates(group: str, name: str) -> tuple[str, ...]:
    kind, colon, rest = name.partition(":")
    if colon:
        return f"{kind}.{rest}", f"{ANY}.{rest}", f"{kind}.{ANY}"
    return () if group == TEACHERS else (name,)


def _unknown(group: str, name: str) -> PluginError:
    kind = _kind(group)
    if not plugins(group):
        return PluginError(
            f"No {kind} is installed, not even the built-in ones.", f"Reinstall {OWN_DISTRIBUTION} with pip."
        )
    near = difflib.get_close_matches(name, names(group), n=1, cutoff=0.5)
    suggestion = f"Did you mean '{near[0]}'? " if near else ""
    if group == DATASETS and Path(name).exists():
        suggestion = f"Write '{_source_of(Path(name))}:{name}' to use this path. "
    return PluginError(f"No {kind} '{name}'.", f"{suggestion}`ccl plugins ls {kind}s` lists them.")


def _source_of(path: Path) -> str:
    """Return the built-in data source that reads a path."""
    if path.is_dir():
        return "shards" if (path / "index.json").exists() else "folder"
    return "csv" if path.suffix in (".csv", ".tsv") else "manifest"


def _kind(group: str) -> str:
    """Convert ``ccl.teachers`` to ``teacher``."""
    return group.removeprefix("ccl.").removesuffix("s")


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or "no message"
