"""Plugins, found through entry points: listed without importing anything, loaded one at a time.

Nothing that is installed beside ccl can break it. A distribution whose metadata is malformed or half removed
costs one warning line that names it; a plugin that fails to import costs whoever asks for it, nobody else.
"""

from __future__ import annotations

import configparser
import difflib
import importlib.util
import logging
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from entrypoints import BadEntryPoint, CaseSensitiveConfigParser, Distribution, EntryPoint, iter_files_distros

from ccl_cli.errors import CclError, PluginError
from ccl_cli.utils.text import in_short

TEACHERS = "ccl.teachers"
STUDENTS = "ccl.students"
METHODS = "ccl.methods"
DATASETS = "ccl.datasets"
COMMANDS = "ccl.commands"
EXECUTORS = "ccl.executors"
GROUPS = (TEACHERS, STUDENTS, METHODS, DATASETS, COMMANDS, EXECUTORS)
Kind = Literal["teacher", "student", "method", "dataset"]  # of plugins that have a contract to check

OWN_DISTRIBUTION = "ccl-cli"
ANY = "any"

# What the loop asks of a plugin, checked once when it is loaded.
_CONTRACT = {TEACHERS: ("from_spec", "weight_files"), METHODS: ("Options",)}

_LONGEST = 1000  # letters of a line
_NOTHING = configparser.ConfigParser()

_log = logging.getLogger("ccl.registry")


@dataclass(frozen=True)
class Plugin:
    """One entry point of one installed distribution.

    Attributes:
        group: ``ccl.teachers``, ``ccl.students``, ``ccl.methods``, ``ccl.datasets``, ``ccl.commands`` or
            ``ccl.executors``.
        name: As in the metadata, e.g. ``audio.cnn14``.
        value: ``module:attribute``.
        distribution: Name of the distribution, normalised.
        version: Its version, where the metadata folder's name has one.
    """

    group: str
    name: str
    value: str
    distribution: str
    version: str | None

    @property
    def label(self) -> str:
        """How a user types it: ``ccl``, ``audio:cnn14``, ``timm:<name>``, ``<modality>:precomputed``."""
        kind, dot, name = self.name.partition(".")
        if not dot:
            return self.name
        return f"{'<modality>' if kind == ANY else kind}:{'<name>' if name == ANY else name}"

    @property
    def origin(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version or '(no version)'}"

    @property
    def importable(self) -> bool:
        """Whether the plugin's top-level module is there; looks, but imports nothing."""
        try:
            return importlib.util.find_spec(self.value.partition(":")[0].partition(".")[0]) is not None
        except (ImportError, ValueError):
            return False


class Scan(NamedTuple):
    """All plugins, first claim of a name first, and one sentence for each thing that was left out."""

    plugins: tuple[Plugin, ...]
    problems: tuple[str, ...]


class Broken(PluginError):
    """A plugin that cannot be used.

    Attributes:
        reason: What is wrong, without the plugin's name and package.
    """

    def __init__(self, message: str, hint: str | None = None, reason: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


_logged: set[str] = set()  # problems that were shown


def scan() -> Scan:
    """Everything on ``sys.path``; read once per process, and each problem logged once."""
    current = _scan(tuple(sys.path))
    for problem in current.problems:
        if problem not in _logged:
            _logged.add(problem)
            _log.warning(problem)
    return current


def problems() -> tuple[str, ...]:
    """What :func:`scan` has left out, for a caller that shows it: it is not logged any more."""
    left_out = _scan(tuple(sys.path)).problems
    _logged.update(left_out)
    return left_out


def plugins(group: str) -> tuple[Plugin, ...]:
    """The plugins of one group, by name."""
    return tuple(sorted((p for p in scan().plugins if p.group == group), key=lambda p: p.name))


def names(group: str) -> list[str]:
    """What a user can type as it stands: labels without a placeholder."""
    return [plugin.label for plugin in plugins(group) if "<" not in plugin.label]


def find(group: str, name: str) -> Plugin:
    """The plugin that a typed name means.

    A teacher or a student ``m:n`` is looked up as ``m.n``, then ``any.n``, then ``m.any``.

    Raises:
        PluginError: nothing of that name; the sentence suggests the nearest one.
    """
    known = {plugin.name: plugin for plugin in plugins(group)}
    for candidate in _candidates(group, name):
        if candidate in known:
            return known[candidate]
    raise _unknown(group, name)


def load(plugin: Plugin) -> Any:
    """Import one plugin and return the object its entry point names.

    Raises:
        PluginError: the import fails, the attribute is missing, or the object is not what the group asks for.
    """
    try:
        target = EntryPoint.from_string(plugin.value, plugin.name).load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {_one_line(error)}"
        hint = f"Update or uninstall {plugin.distribution}; --debug shows the traceback."
        message = f"{_subject(plugin)} cannot be loaded from '{plugin.value}': {reason}."
        raise Broken(message, hint, reason) from error
    missing = [name for name in _CONTRACT.get(plugin.group, ()) if not hasattr(target, name)]
    missing += [name for name in dir(target) if _is_abstract(getattr(target, name, None))]
    if missing or not callable(target):
        reason = f"'{plugin.value}' {'has no ' + missing[0] if missing else 'cannot be called'}"
        message = f"{_subject(plugin)} breaks its contract: {reason}."
        raise Broken(message, f"Update or uninstall {plugin.distribution}.", reason)
    return target


def _is_abstract(member: object) -> bool:
    return getattr(member, "__isabstractmethod__", False) is True


def _subject(plugin: Plugin) -> str:
    return f"{_kind(plugin.group).capitalize()} '{plugin.label}' of {plugin.origin}"


@contextmanager
def blaming(plugin: Plugin) -> Iterator[None]:
    """Run a plugin's code: what it raises besides our own errors is reported as the plugin's failure.

    Raises:
        PluginError: naming the plugin and its distribution.
    """
    try:
        yield
    except (CclError, OSError):
        raise
    except Exception as error:
        raise PluginError(
            f"{_kind(plugin.group).capitalize()} '{plugin.label}' of {plugin.origin} failed: "
            f"{type(error).__name__}: {_one_line(error) or 'no message'}.",
            "--debug shows the traceback, for whoever wrote it.",
        ) from error


@cache
def _scan(folders: tuple[str, ...]) -> Scan:
    problems: list[str] = []
    claims: dict[tuple[str, str], Plugin] = {}
    # Stable: our own names cannot be taken over by whatever happens to come earlier on sys.path.
    for plugin in sorted(_entries(folders, problems), key=lambda p: p.distribution != OWN_DISTRIBUTION):
        first = claims.setdefault((plugin.group, plugin.name), plugin)
        if first is not plugin:
            problems.append(
                f"{_kind(plugin.group).capitalize()} '{plugin.label}' of {plugin.origin} is ignored: "
                f"{first.origin} already provides that name; uninstall one of them."
            )
    return Scan(tuple(claims.values()), tuple(in_short(problem, _LONGEST) for problem in problems))


def _entries(folders: Iterable[str], problems: list[str]) -> Iterator[Plugin]:
    names: set[str] = set()
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        for distribution, config in _metadata(folder, problems):
            name = re.sub(r"[-_.]+", "-", distribution.name).lower()
            if name not in names:  # a distribution shadows its namesakes later on the path, as its modules do
                names.add(name)
                yield from _declared(name, distribution.version, config, problems)


def _declared(
    distribution: str, version: str | None, config: configparser.ConfigParser, problems: list[str]
) -> Iterator[Plugin]:
    for group in filter(config.has_section, GROUPS):
        for name, value in config.items(group, raw=True):
            plugin = Plugin(group, name, value, distribution, version)
            try:
                EntryPoint.from_string(value, name)
            except BadEntryPoint:
                problems.append(f"{plugin.origin}: '{name} = {_one_line(value)}' is no entry point; ignored.")
            else:
                yield plugin


def _metadata(folder: Path, problems: list[str]) -> Iterator[tuple[Distribution, configparser.ConfigParser]]:
    # The library gives up at the first bad file, so each folder of metadata is read on its own here;
    # zip archives and eggs hold one distribution each and are left to the library.
    if folder.is_dir() and folder.suffix != ".egg":
        yield from _installed(folder, problems)
    elif folder.exists():
        try:
            yield from ((distribution, config) for config, distribution in iter_files_distros([str(folder)]))
        except (OSError, UnicodeError, configparser.Error, zipfile.BadZipFile) as error:
            problems.append(f"{folder.name}: its entry points cannot be read ({_one_line(error)}); ignored.")


def _installed(folder: Path, problems: list[str]) -> Iterator[tuple[Distribution, configparser.ConfigParser]]:
    try:
        infos = sorted(path for path in folder.iterdir() if path.name.endswith((".dist-info", ".egg-info")))
    except OSError:
        return
    for info in infos:
        distribution = Distribution.from_name_version(info.stem)
        try:
            yield distribution, _parsed(_entry_points(info))
        except (OSError, UnicodeError, configparser.Error, _HalfRemoved) as error:
            problems.append(
                f"{info.stem.replace('-', ' ', 1)}: its plugins are ignored, because {_reason(error)} "
                f"({info}). Reinstall or remove it."
            )


class _HalfRemoved(Exception):
    pass


def _parsed(text: str) -> configparser.ConfigParser:
    if not text:
        return _NOTHING  # making a parser is what takes long
    if max(map(len, text.splitlines())) > _LONGEST:  # it would be looked at for seconds
        raise configparser.Error(f"a line of it is longer than {_LONGEST} letters")
    config: configparser.ConfigParser = CaseSensitiveConfigParser(delimiters=("=",))
    config.read_string(text, source="entry_points.txt")
    return config


def _entry_points(info: Path) -> str:
    """The text of ``entry_points.txt``, or "" where it is absent or does not concern ccl."""
    try:
        raw = (info / "entry_points.txt").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if b"ccl." not in raw.replace(b"\0", b""):  # zero bytes: the file may be in UTF-16 by mistake
        return ""
    described = (info / "METADATA").exists() or (info / "PKG-INFO").exists()
    if info.name.startswith("~") or not described:
        raise _HalfRemoved
    return raw.decode("utf-8")


def _reason(error: Exception) -> str:
    if isinstance(error, _HalfRemoved):
        return "it is half uninstalled"
    return f"its entry points cannot be read: {_one_line(error)}"


def _candidates(group: str, name: str) -> tuple[str, ...]:
    kind, colon, rest = name.partition(":")
    if colon:
        return f"{kind}.{rest}", f"{ANY}.{rest}", f"{kind}.{ANY}"
    return () if group == TEACHERS else (name,)


def _unknown(group: str, name: str) -> PluginError:
    kind = _kind(group)
    if not plugins(group):
        return PluginError(
            f"No {kind} is installed at all, not even ccl's own.", f"Reinstall {OWN_DISTRIBUTION} with pip."
        )
    near = difflib.get_close_matches(name, names(group), n=1, cutoff=0.5)
    suggestion = f"Did you mean '{near[0]}'? " if near else ""
    return PluginError(f"No {kind} '{name}'.", f"{suggestion}`ccl plugins ls {kind}s` lists them.")


def _kind(group: str) -> str:
    """``ccl.teachers`` to ``teacher``."""
    return group.removeprefix("ccl.").removesuffix("s")


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or "no message"
