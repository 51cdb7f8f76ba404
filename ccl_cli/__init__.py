"""`ccl`: distil frozen teacher networks into one small video network (Chen et al., CVPR 2021).

The names below are those of the command line, for Python; docs/python.md shows them at work. Each is imported
when it is first used, so that ``import ccl_cli`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccl_cli.data.raw import list_videos
    from ccl_cli.data.sources import load_data
    from ccl_cli.engine.build import load_teacher
    from ccl_cli.engine.describing import embed, load_student, predict
    from ccl_cli.engine.evaluate import evaluate
    from ccl_cli.engine.indexing import index
    from ccl_cli.engine.searching import search
    from ccl_cli.engine.trainer import train
    from ccl_cli.errors import CclError
    from ccl_cli.methods import Method
    from ccl_cli.recipe import Recipe
    from ccl_cli.recipe_files import load_recipe
    from ccl_cli.students import Student
    from ccl_cli.teachers import Teacher

__version__ = "0.1.0"
__all__ = [
    "CclError",
    "Method",
    "Recipe",
    "Student",
    "Teacher",
    "embed",
    "evaluate",
    "index",
    "list_videos",
    "load_data",
    "load_recipe",
    "load_student",
    "load_teacher",
    "predict",
    "search",
    "train",
]

_PLACES = {
    "CclError": "errors",
    "Method": "methods",
    "Recipe": "recipe",
    "Student": "students",
    "Teacher": "teachers",
    "embed": "engine.describing",
    "evaluate": "engine.evaluate",
    "index": "engine.indexing",
    "list_videos": "data.raw",
    "load_data": "data.sources",
    "load_recipe": "recipe_files",
    "load_student": "engine.describing",
    "load_teacher": "engine.build",
    "predict": "engine.describing",
    "search": "engine.searching",
    "train": "engine.trainer",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"ccl_cli.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'ccl_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
