"""Pydantic's validation errors as sentences with key, problem, value and source; helpers for messages."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ccl_cli.errors import CclError, MultipleErrors, RecipeError, UsageError

Keys = tuple[str, ...]

_SHOULD = re.compile(r"^(Input|Value|Keys|String|Tuple|List|Dictionary) should ")
_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = 60
_ASIDE = re.compile(r", unable to parse.*| after validation.*")


def bundled(errors: Sequence[CclError]) -> CclError:
    """Return a single error as it is, or several as one ``MultipleErrors``."""
    return errors[0] if len(errors) == 1 else MultipleErrors(list(errors))


def listed(names: Sequence[object], limit: int = 8) -> str:
    """Join names for a sentence, with only the first few of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


def check_known(kind: str, name: str, names: Iterable[str]) -> None:
    """Check that a name is one of the known names; ``kind`` is the noun for the message.

    Raises:
        UsageError: the name is unknown; the message suggests the nearest known name.
    """
    names = list(dict.fromkeys(names))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        suggestion = f"Did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"There is no {kind} '{name}' here.",
            f"{suggestion}There are: {', '.join(each or '(none)' for each in names)}.",
        )


def invalid_value(error: ValidationError) -> str:
    """Describe the first invalid value of a validation error."""
    detail = error.errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"])))


def invalid(
    error: ValidationError,
    model: type[BaseModel],
    prefix: Keys = (),
    origins: Mapping[Keys, str] | None = None,
) -> CclError:
    """Convert a validation error to an error for the user.

    Args:
        error: Exception of pydantic.
        model: Validated model; its field names are suggested for mistyped keys.
        prefix: Keys of the model within the recipe.
        origins: Source of each value by its keys, for example ``smoke.yaml:12``.
    """
    return bundled([_sentence(detail, model, prefix, origins or {}) for detail in error.errors()])


def _sentence(detail: Any, model: type[BaseModel], prefix: Keys, origins: Mapping[Keys, str]) -> RecipeError:
    keys = (*prefix, *(str(part) for part in detail["loc"] if part != "[key]"))
    # The source of the value, or of the section that contains it.
    where = next((origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origins), None)
    at = f" ({where})" if where else ""
    field = ".".join(keys) or "The recipe"
    if detail["type"] == "extra_forbidden":
        return RecipeError(f"{field}: there is no such key{at}.", _suggestion(keys, prefix, model))
    if detail["type"] == "value_error":
        return RecipeError(f"{field}: {detail['ctx']['error']}{at}.")
    if detail["type"] == "missing":
        return RecipeError(f"{field}: a value is missing{at}.")
    must = _ASIDE.sub("", _SHOULD.sub("must ", detail["msg"]))
    if detail["type"] in ("model_type", "dict_type"):
        must = "must be a section of keys and values"
    return RecipeError(f"{field}: {must}, got {_shortener.repr(detail['input'])}{at}.")


def _suggestion(keys: Keys, prefix: Keys, model: type[BaseModel]) -> str:
    paths = [(*prefix, *path) for path in _fields(model)]
    elsewhere = [path for path in paths if path[-1] == keys[-1]]
    siblings = {path[-1]: path for path in paths if path[:-1] == keys[:-1]}
    near = difflib.get_close_matches(keys[-1], siblings, n=1)
    candidates = elsewhere or [siblings[name] for name in near]
    if candidates:
        return f"Did you mean '{'.'.join(candidates[0])}'?"
    return f"Valid keys: {', '.join(siblings) or 'none'}."


def _fields(model: type[BaseModel], prefix: Keys = ()) -> Iterator[Keys]:
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, (*prefix, name))
