"""Log the figures of a run to the trackers of the run."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from ccl_cli.config.load import load_recipe
from ccl_cli.errors import CclError
from ccl_cli.report.figures.registry import write_figure
from ccl_cli.report.records.results import load_results
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.folder import RECIPE, RunFolder
from ccl_cli.training.run.trackers import log_picture, need_trackers, tracking

FIGURES = ("curves", "confusion", "gallery", "tsne")
_log = logging.getLogger("ccl")


def track_figures(folder: Path, split: str) -> None:
    """Draw the figures of a run and log them to its trackers; a failure is logged as a warning.

    Args:
        folder: Folder of a run that has trackers and was evaluated on its own data set.
        split: Evaluated split to show: "test" or "val".
    """
    recipe, accelerator = load_recipe(str(folder / RECIPE)), set_up("fp32")
    try:
        results = load_results([folder], split)
        need_trackers(recipe.train.trackers)
        with TemporaryDirectory() as temporary, tracking(accelerator, recipe, RunFolder(folder)):
            for name in FIGURES:
                path = Path(temporary) / f"{name}.png"
                try:
                    write_figure(results, name, path)
                except CclError as error:  # for example, no neighbours without retrieval
                    _log.info("No figure '%s' for the trackers: %s", name, error.message)
                    continue
                log_picture(accelerator, path)
    except CclError as error:
        _log.warning("The trackers get no figures of the report: %s", error.message)
