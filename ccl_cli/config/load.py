"""Load built-in recipes and recipe files, and apply command-line options and overrides.

Precedence, lowest first: defaults < recipe file < command-line option < ``--set a.b=c``. A file takes
precedence over the file that it extends. ``$CCL_RECIPE`` is the default recipe.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ccl_cli import registry
from ccl_cli.config import yaml_text
from ccl_cli.config.recipe import Executor, Recipe, methods_section
from ccl_cli.config.spec import parse_data, parse_model
from ccl_cli.errors import CclError, MultipleErrors, PluginError, RecipeError, UsageError
from ccl_cli.utils.sentences import Keys, bundled, invalid

T = TypeVar("T")


def builtin_recipes() -> dict[str, Path]:
    """Return the paths of the built-in recipes by name."""
    here = Path(__file__).parents[1]
    installed = here / "recipes"
    folder = installed if installed.is_dir() else here.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def load_recipe(
    name: str | None = None, flags: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Read a recipe, and apply command-line options and overrides.

    Args:
        name: Built-in recipe, YAML file or run folder. Default: ``$CCL_RECIPE``, else the default values.
        flags: Values by dotted key; None means that the option was not given.
        overrides: ``a.b=c``; values are parsed as YAML.

    Raises:
        RecipeError: the recipe does not exist, is not YAML, or has an unknown key or an invalid value.
        MultipleErrors: there are several such errors.
        UsageError: an override has no ``=``.
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
    """Serialise a recipe with all defaults; loading the text gives an equal recipe."""
    empty = {key for key in ("methods", "bench") if not getattr(recipe, key)}
    empty |= {"executor"} if recipe.executor == Executor() else set()
    return yaml_text.dump(recipe.model_dump(mode="json", exclude=empty))


def check_recipe(recipe: Recipe) -> None:
    """Resolve the plugins of a recipe and validate the options of its methods, without building anything.

    Raises a PluginError, a RecipeError, or MultipleErrors with all of them.
    """
    plugins = [(registry.TEACHERS, parse_model(text).label) for text in recipe.teachers]
    plugins += [(registry.STUDENTS, parse_model(recipe.student).label)]
    plugins += [(registry.DATASETS, parse_data(recipe.data).kind)] if recipe.data else []
    errors: list[CclError] = []
    for group, name in plugins:
        attempt(errors, partial(registry.find, group, name))
    for name, options in recipe.method.items():
        attempt(errors, partial(_check_method, name, options))
    if recipe.labels_per_class == 0:
        attempt(errors, partial(refuse_without_labels, recipe))
    if errors:
        raise bundled(errors)


def attempt(errors: list[CclError], make: Callable[[], T]) -> T | None:
    """Call ``make``; if it fails, add its errors to the list and return None."""
    try:
        return make()
    except MultipleErrors as several:
        errors.extend(several.errors)
    except CclError as error:
        errors.append(error)
    return None


def needs_labels(name: str) -> bool:
    """Return whether a method trains on labelled videos only."""
    return bool(registry.load(registry.find(registry.METHODS, name)).needs_labels)


def refuse_without_labels(recipe: Recipe) -> None:
    """Raise a RecipeError if a method requires labels, which lists the others; for runs without any label."""
    labelled = [name for name in recipe.method if needs_labels(name)]
    if not labelled:
        return
    unlabelled = []
    for name in registry.names(registry.METHODS):
        with suppress(PluginError):  # a broken third-party package
            unlabelled += [] if needs_labels(name) else [name]
    raise RecipeError(
        f"{' and '.join(labelled)} cannot train without labels.",
        f"These methods do not use labels: {', '.join(unlabelled)}.",
    )


def method_options(method: Any, name: str, given: Mapping[str, Any]) -> BaseModel:
    """Validate the options of a method; a RecipeError names ``method.<name>.<option>``."""
    model: type[BaseModel] = method.Options
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise invalid(error, model, ("method", name)) from None


class _Layers:
    """Recipe values merged from several sources; later sources take precedence.

    ``origins`` has the source of each value: ``smoke.yaml:12``, "the command line" or ``--set a.b=c``.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Keys, str] = {}

    def read(self, path: Path, children: tuple[Path, ...] = ()) -> None:
        """Merge a YAML file, after the file that it extends. ``children`` extend this one."""
        values, lines = yaml_text.read(path)
        origins = {keys: f"{path.name}:{line}" for keys, line in lines.items()}
        if "extends" in values:
            family = (*children, path.resolve())
            self.read(_parent(values.pop("extends"), family, origins.pop(("extends",))), family)
        self._add(values, origins)

    def choose_method(self, name: str) -> None:
        """Apply ``--method``: set the method and its entry in ``methods``."""
        section = self.values.get("methods")
        entry = section.get(name) if isinstance(section, dict) else None
        changes = {"method": name, **(entry if isinstance(entry, dict) else {})}
        written = {keys[2:]: at for keys, at in self.origins.items() if keys[:2] == ("methods", name)}
        self._add(changes, {**written, ("method",): "the command line"})

    def _add(self, values: dict[str, Any], origins: Mapping[Keys, str]) -> None:
        self.values = merged(self.values, _expanded(values))
        self.origins |= origins

    def assign(self, keys: Keys, value: Any, origin: str) -> None:
        """Set the value at ``keys``, creating sections as needed."""
        section = self.values
        for depth, key in enumerate(keys[:-1], 1):
            self.origins.setdefault(keys[:depth], origin)
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise RecipeError(f"{'.'.join(keys[:depth])}: is a value, not a section ({origin}).")
        section[keys[-1]] = value
        # A new value replaces a whole section, so the origins of its keys are outdated.
        self.origins = {key: at for key, at in self.origins.items() if key[: len(keys)] != keys}
        self.origins[keys] = origin
        self.values = _expanded(self.values)


def merged(below: Mapping[str, Any], above: Mapping[str, Any], at: Keys = ()) -> dict[str, Any]:
    """Merge sections by key; replace methods, benchmark rows, lists and other values as a whole."""
    both = {
        key: merged(below[key], value, (*at, key))
        for key, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(key), dict) and not _is_replaced(*at, key)
    }
    return {**below, **above, **both}


def _is_replaced(*keys: str) -> bool:
    # If these were merged, a child recipe could not drop an option or a method of its parent.
    return keys == ("method",) or keys[:-1] in (("methods",), ("bench", "methods"), ("bench", "ablations"))


def _expanded(values: dict[str, Any]) -> dict[str, Any]:
    # Expand `method: ccl` to a section, so that `--set method.ccl.x=1` can set a key in it.
    return {**values, "method": methods_section(values["method"])} if "method" in values else values


def _locate(name: str, folder: Path = Path(), origin: str = "") -> Path:
    """Find the file of a built-in recipe, a path or a run folder, relative to ``folder``."""
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
    """Find the recipe that the last file of ``family`` extends, and refuse circular inheritance."""
    if not isinstance(name, str):
        raise RecipeError(f"extends: must be the name or the file of a recipe, got {name!r} ({origin}).")
    path = _locate(name, family[-1].parent, f" ({origin})")
    if path.resolve() in family:
        circle = [each.name for each in family[family.index(path.resolve()) :]]
        raise RecipeError(
            f"extends: {' extends '.join([*circle, circle[0]])} ({origin}).",
            "Remove one of these `extends` keys.",
        )
    return path


def _override(text: str) -> tuple[Keys, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"'--set {text}' is not key=value.", "For example --set train.epochs=10.")
    return tuple(key.split(".")), yaml_text.parse(value, f"--set {text}")


def _check_method(name: str, options: Mapping[str, Any]) -> None:
    method_options(registry.load(registry.find(registry.METHODS, name)), name, options)
