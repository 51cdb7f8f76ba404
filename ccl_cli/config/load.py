"""Load recipes by name, built in or a file, with the flags and overrides of a command line.

Precedence, lowest first: defaults < recipe file < flag typed < ``--set a.b=c``. A file takes precedence over
the one that it extends. Where no recipe is named, ``$CCL_RECIPE`` names one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ccl_cli import registry
from ccl_cli.config import yaml_text
from ccl_cli.config.recipe import Executor, Recipe, methods_section
from ccl_cli.config.spec import parse_data, parse_model
from ccl_cli.errors import CclError, MultipleErrors, PluginError, RecipeError, UsageError
from ccl_cli.utils.sentences import Keys, bundled, invalid


def builtin_recipes() -> dict[str, Path]:
    """The recipes that ship with ccl, by name."""
    here = Path(__file__).parents[1]
    installed = here / "recipes"
    folder = installed if installed.is_dir() else here.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def load_recipe(
    name: str | None = None, flags: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Read a recipe and lay flags and overrides over it.

    Args:
        name: A built-in recipe, a YAML file or a run's folder; None for ``$CCL_RECIPE``, else the defaults.
        flags: Dotted key to value, for each flag; None stands for a flag that was not typed.
        overrides: ``a.b=c``, each value read as YAML.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key or a bad value.
        MultipleErrors: more than one of these.
        UsageError: an override without ``=``.
    """
    name = name or os.environ.get("CCL_RECIPE")
    layers = _Layers()
    if name:
        layers.read(_locate(name))
    typed = {key: value for key, value in (flags or {}).items() if value is not None}
    if "method" in typed:
        layers.choose_method(typed.pop("method"))
    for key, value in typed.items():
        layers.assign(tuple(key.split(".")), value, "the command line")
    for text in overrides:
        layers.assign(*_override(text), f"--set {text}")
    try:
        return Recipe.model_validate(layers.values)
    except ValidationError as error:
        raise invalid(error, Recipe, origins=layers.origins) from None


def to_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out; reads back equal."""
    empty = {key for key in ("methods", "bench") if not getattr(recipe, key)}
    empty |= {"executor"} if recipe.executor == Executor() else set()
    return yaml_text.dump(recipe.model_dump(mode="json", exclude=empty))


def check_recipe(recipe: Recipe) -> None:
    """Resolve every plugin the recipe names and validate its methods' options; nothing is built.

    Raises:
        PluginError: an unknown plugin, or a method that cannot be imported.
        RecipeError: a bad option, or a method that needs labels and gets none.
        MultipleErrors: more than one of these.
    """
    plugins = [(registry.TEACHERS, parse_model(text).label) for text in recipe.teachers]
    plugins += [(registry.STUDENTS, parse_model(recipe.student).label)]
    plugins += [(registry.DATASETS, parse_data(recipe.data).kind)] if recipe.data else []
    checks: list[Callable[[], object]] = [partial(registry.find, group, name) for group, name in plugins]
    checks += [partial(_check_method, name, options) for name, options in recipe.method.items()]
    checks += [partial(refuse_without_labels, recipe)] if recipe.labels_per_class == 0 else []
    if errors := list(_failures(checks)):
        raise bundled(errors)


def needs_labels(name: str) -> bool:
    """Whether a method trains on labelled videos only."""
    return bool(registry.load(registry.find(registry.METHODS, name)).needs_labels)


def refuse_without_labels(recipe: Recipe) -> None:
    """Stop where no training video has a label and one of the methods needs them.

    Raises:
        RecipeError: names the methods that need none.
    """
    needy = [name for name in recipe.method if needs_labels(name)]
    if not needy:
        return
    able = []
    for name in registry.names(registry.METHODS):
        with suppress(PluginError):  # a broken package of somebody else's
            able += [] if needs_labels(name) else [name]
    raise RecipeError(
        f"{' and '.join(needy)} cannot train without labels.",
        f"These methods need none: {', '.join(able)}.",
    )


def method_options(method: Any, name: str, given: Mapping[str, Any]) -> BaseModel:
    """Validate the options given to a method against its ``Options``.

    Raises:
        RecipeError: an unknown option or a bad value, named ``method.<name>.<option>``.
    """
    model: type[BaseModel] = method.Options
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise invalid(error, model, ("method", name)) from None


class _Layers:
    """Values from several sources; a later source takes precedence.

    Attributes:
        values: Nested sections.
        origins: Where each value was written, by its keys: ``smoke.yaml:12``, "the command line" or
            ``--set a.b=c``.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Keys, str] = {}

    def read(self, path: Path, children: tuple[Path, ...] = ()) -> None:
        """Add a YAML file, after the one that it extends.

        Args:
            path: The file.
            children: The files that extend this one; first the one that the user named.
        """
        values, lines = yaml_text.read(path)
        origins = {keys: f"{path.name}:{line}" for keys, line in lines.items()}
        if "extends" in values:
            family = (*children, path.resolve())
            self.read(_parent(values.pop("extends"), family, origins.pop(("extends",))), family)
        self._add(values, origins)

    def choose_method(self, name: str) -> None:
        """Add a method that a flag names, and the keys that go with it."""
        section = self.values.get("methods")
        entry = section.get(name) if isinstance(section, dict) else None
        changes = {"method": name, **(entry if isinstance(entry, dict) else {})}
        written = {keys[2:]: at for keys, at in self.origins.items() if keys[:2] == ("methods", name)}
        self._add(changes, {**written, ("method",): "the command line"})

    def _add(self, values: dict[str, Any], origins: Mapping[Keys, str]) -> None:
        self.values = merged(self.values, _expanded(values))
        self.origins |= origins

    def assign(self, keys: Keys, value: Any, origin: str) -> None:
        """Set the value at ``keys``; sections on the way are made."""
        section = self.values
        for depth, key in enumerate(keys[:-1], 1):
            self.origins.setdefault(keys[:depth], origin)
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise RecipeError(f"{'.'.join(keys[:depth])}: is a value, not a section ({origin}).")
        section[keys[-1]] = value
        # The keys of a section that is replaced are gone.
        self.origins = {key: at for key, at in self.origins.items() if key[: len(keys)] != keys}
        self.origins[keys] = origin
        self.values = _expanded(self.values)


def merged(below: Mapping[str, Any], above: Mapping[str, Any], at: Keys = ()) -> dict[str, Any]:
    """Merge sections by key; replace methods, a benchmark's rows and all else, lists too, as a whole."""
    both = {
        key: merged(below[key], value, (*at, key))
        for key, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(key), dict) and not _is_replaced(*at, key)
    }
    return {**below, **above, **both}


def _is_replaced(*keys: str) -> bool:
    # Merged with the parent's section, the child's could not drop an option or a method.
    return keys == ("method",) or keys[:-1] in (("methods",), ("bench", "methods"), ("bench", "ablations"))


def _expanded(values: dict[str, Any]) -> dict[str, Any]:
    # `method: ccl` must be a section before `--set method.ccl.x=1` can reach into it.
    return {**values, "method": methods_section(values["method"])} if "method" in values else values


def _locate(name: str, folder: Path = Path(), origin: str = "") -> Path:
    """A built-in name, a file, or a run's folder; a relative one starts from ``folder``."""
    builtin = builtin_recipes()
    if name in builtin:
        return builtin[name]
    named = Path(name).expanduser()
    path = folder / named / "recipe.yaml" if (folder / named).is_dir() else folder / named
    if path.is_file():
        return path
    if named.suffix in (".yaml", ".yml") or named.parent != Path():
        raise RecipeError(
            f"There is no recipe file '{path}'{origin}.", "`ccl recipes ls` lists the built-in recipes."
        )
    near = difflib.get_close_matches(name, builtin, n=1)
    suggestion = f"Did you mean '{near[0]}'? " if near else ""
    raise RecipeError(f"No recipe '{name}'{origin}.", f"{suggestion}`ccl recipes ls` lists them.")


def _parent(name: Any, family: tuple[Path, ...], origin: str) -> Path:
    """The recipe that the last of ``family`` extends; none may extend itself, however many lie between."""
    if not isinstance(name, str):
        raise RecipeError(f"extends: must be one recipe's name or file, got {name!r} ({origin}).")
    path = _locate(name, family[-1].parent, f" ({origin})")
    if path.resolve() in family:
        circle = [each.name for each in family[family.index(path.resolve()) :]]
        raise RecipeError(f"extends: {' extends '.join([*circle, circle[0]])} ({origin}).", "Cut the circle.")
    return path


def _override(text: str) -> tuple[Keys, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"'--set {text}' is not key=value.", "For example --set train.epochs=10.")
    return tuple(key.split(".")), yaml_text.parse(value, f"--set {text}")


def _check_method(name: str, options: Mapping[str, Any]) -> None:
    method_options(registry.load(registry.find(registry.METHODS, name)), name, options)


def _failures(checks: Iterable[Callable[[], object]]) -> Iterator[CclError]:
    for check in checks:
        try:
            check()
        except MultipleErrors as several:
            yield from several.errors
        except CclError as error:
            yield error
