"""`ccl`: distil frozen teacher networks into one small video network (Chen et al., CVPR 2021).

The Python API mirrors the command line; see docs/python.md. Names are imported on first use, so that ``import
ccl_cli`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccl_cli.config.load import load_recipe as load_recipe
    from ccl_cli.config.recipe import Recipe as Recipe
    from ccl_cli.data.sources import load_data as load_data
    from ccl_cli.data.video_paths import list_videos as list_videos
    from ccl_cli.deploy.predict import embed as embed
    from ccl_cli.deploy.predict import predict as predict
    from ccl_cli.errors import CclError as CclError
    from ccl_cli.evaluation.evaluate import evaluate as evaluate
    from ccl_cli.evaluation.model import load_student as load_student
    from ccl_cli.evaluation.while_training import train as train
    from ccl_cli.library.index import index as index
    from ccl_cli.library.query import search as search
    from ccl_cli.methods import Method as Method
    from ccl_cli.report.figures.registry import figure as figure
    from ccl_cli.report.page.page import write_page as write_page
    from ccl_cli.report.records.runs import runs as runs
    from ccl_cli.report.records.training_log import curves as curves
    from ccl_cli.students import Student as Student
    from ccl_cli.teachers import Teacher as Teacher
    from ccl_cli.training.build import load_teacher as load_teacher
    from ccl_cli.training.dry_run import draw_samples as draw_samples
    from ccl_cli.training.fit_teacher import fit_teacher as fit_teacher

__version__ = "0.2.0"
_MODULES = {
    "CclError": "errors",
    "Method": "methods",
    "Recipe": "config.recipe",
    "Student": "students",
    "Teacher": "teachers",
    "curves": "report.records.training_log",
    "draw_samples": "training.dry_run",
    "embed": "deploy.predict",
    "evaluate": "evaluation.evaluate",
    "figure": "report.figures.registry",
    "fit_teacher": "training.fit_teacher",
    "index": "library.index",
    "list_videos": "data.video_paths",
    "load_data": "data.sources",
    "load_recipe": "config.load",
    "load_student": "evaluation.model",
    "load_teacher": "training.build",
    "predict": "deploy.predict",
    "runs": "report.records.runs",
    "search": "library.query",
    "train": "evaluation.while_training",
    "write_page": "report.page.page",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"ccl_cli.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ccl_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
