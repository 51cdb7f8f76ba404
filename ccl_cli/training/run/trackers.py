"""Trackers of experiments beside ``metrics.jsonl``: Accelerate's classes, and what these leave open.

A run's folder records by which arguments each tracker finds its run again. A resumed run continues there and
skips the steps that were logged before it was interrupted: they are the same to the bit. A tracker that
cannot find its run again starts a new one, from the checkpoint's step on.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import SystemSetupError
from ccl_cli.training.run.folder import TRACKERS, RunFolder, read_json
from ccl_cli.utils.distributed import on_main
from ccl_cli.utils.files import write_text
from ccl_cli.utils.json_text import flat

_IN_EXTRA = ("mlflow", "tensorboard", "wandb")
# How a tracker finds a run again, from its own object for the run. TensorBoard finds it in its folder.
_GO_ON: dict[str, Callable[[Any], dict[str, str]]] = {
    "mlflow": lambda run: {"run_id": run.info.run_id},
    "tensorboard": lambda run: {},
    "trackio": lambda run: {"name": run.name, "resume": "allow"},
    "wandb": lambda run: {"id": run.id, "resume": "allow"},
}
_UNNAMEABLE = re.compile(r"[^\w./: -]")  # in a name, for MLflow; `standardize` has a key `*`
_log = logging.getLogger("ccl")


def need_trackers(names: Sequence[str]) -> None:
    """See that trackers are installed.

    Raises:
        SystemSetupError: one is not.
    """
    available = {str(each) for each in get_available_trackers()}
    for name in names:
        if name not in available:
            package = "'ccl-cli[trackers]'" if name in _IN_EXTRA else name
            raise SystemSetupError(
                f"The tracker {name} is not installed.", f"Install it with `pip install {package}`."
            )


@contextmanager
def tracking(accelerator: Accelerator, recipe: Recipe, run: RunFolder) -> Iterator[None]:
    """Give what ``accelerator.log`` gets to the recipe's trackers; all processes enter it together.

    Figures of a step carry it; figures without a step are final ones of the run.

    Raises:
        SystemSetupError: a tracker does not start.
    """
    if not recipe.train.trackers:
        yield
        return
    with redirect_stdout(sys.stderr):  # where the result of a command goes, trackers print too
        try:
            on_main(lambda: _start(accelerator, recipe, run))
            yield
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            accelerator.trackers.clear()


class Tracked:
    """One of Accelerate's trackers, that takes no step twice and whose failure does not end a training.

    Args:
        tracker: Started.
        logged: The last steps that the run has logged to it, as :meth:`RunFolder.last_logged` gives them.
        step: The run's last step so far.
    """

    def __init__(self, tracker: Any, logged: Mapping[bool, int], step: int) -> None:
        self.name: str = tracker.name
        # In MLflow's files `ce` and `ce/audio:cnn14` would be a file and a folder of one name.
        self._separator = "." if self.name == "mlflow" else "/"
        self._tracker, self._logged, self._step, self._open = tracker, logged, step, True

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log the figures of a step, or, without one, figures of the whole run."""
        named = {name.replace("/", self._separator): value for name, value in values.items()}
        if step is None:
            self._attempt(lambda: self._log_final(named))
        elif step > self._logged["loss" in values]:
            self._step = step
            self._attempt(lambda: self._tracker.log(named, step=step))

    def log_picture(self, path: Path) -> None:
        """Log a PNG file, by its name without suffix, at the present step."""
        self._attempt(lambda: _log_picture(self._tracker, path, max(self._step, 0)))

    def finish(self) -> None:
        """Send the rest; nothing is logged afterwards."""
        self._attempt(self._tracker.finish)
        self._open = False

    def _log_final(self, values: dict[str, Any]) -> None:
        if self.name == "wandb":  # which takes nothing for a step that it has passed
            self._tracker.tracker.summary.update(values)
        else:
            self._tracker.log(values, step=max(self._step, 0))

    def _attempt(self, action: Callable[[], object]) -> None:
        if not self._open:
            return
        try:
            action()
        except Exception as error:  # whatever a service and its client come up with
            self._open = False
            _log.warning("The tracker %s failed and gets nothing more: %s", self.name, _reason(error))
            with suppress(Exception):
                self._tracker.finish()


def log_picture(accelerator: Accelerator, path: Path) -> None:
    """Give a PNG file to the trackers."""
    for tracker in accelerator.trackers:
        tracker.log_picture(path)


def _start(accelerator: Accelerator, recipe: Recipe, run: RunFolder) -> None:
    record, logged = read_json(run.path / TRACKERS), run.last_logged()
    for name in recipe.train.trackers:
        continues = name in record and name in _GO_ON
        tracker = _make(name, recipe, run, record.get(name, {}))
        try:
            tracker.start()
            if not continues or name == "trackio":  # which replaces it by nothing otherwise
                tracker.store_init_configuration(_configuration(recipe))
            go_on = _GO_ON[name](tracker.tracker) if name in _GO_ON else {}
        except Exception as error:
            raise SystemSetupError(
                f"The tracker {name} does not start: {_reason(error)}.",
                "Set it up as its documentation says, or leave it out: --set train.trackers=[].",
            ) from error
        skipped = logged if continues else {True: -1, False: -1}
        accelerator.trackers.append(Tracked(tracker, skipped, max(logged.values())))
        record[name] = go_on
    write_text(run.path / TRACKERS, json.dumps(record) + "\n")


def _make(name: str, recipe: Recipe, run: RunFolder, go_on: Mapping[str, str]) -> Any:
    """Accelerate's tracker: the recipe's name is its project, the folder's name the run in it."""
    title = run.path.resolve().name
    options: dict[str, dict[str, Any]] = {
        "aim": {"logging_dir": "."},
        "clearml": {"task_name": title},
        "dvclive": {"dir": str(run.path / "dvclive")},
        "mlflow": {"run_name": title},
        "swanlab": {"experiment_name": title},
        "tensorboard": {"logging_dir": str(run.path)},
        "trackio": {"name": title},
        "wandb": {
            "name": title,
            "dir": str(run.path),
            # It would record all that is printed, the progress bar too.
            "settings": {"console": "off", "silent": not _log.isEnabledFor(logging.INFO)},
        },
    }
    project = {"aim": title, "tensorboard": "log"}.get(name, recipe.name)
    return LOGGER_TYPE_TO_CLASS[name](project, **{**options.get(name, {}), **go_on})


def _configuration(recipe: Recipe) -> dict[str, bool | int | float | str]:
    """The recipe as names and plain values, without what is there for other runs only."""
    sections = recipe.without(("description", "methods", "bench", "executor"))
    values = {"hash": recipe.hash(), "method": recipe.method_label, **flat(sections)}
    plain = (bool, int, float, str)
    return {
        _UNNAMEABLE.sub("_", key): value if isinstance(value, plain) else json.dumps(value)
        for key, value in values.items()
    }


def _log_picture(tracker: Any, path: Path, step: int) -> None:
    """Accelerate has no pictures of MLflow and Trackio; its others take them in several forms."""
    if tracker.name == "mlflow":
        tracker.log_artifact(str(path))
    elif tracker.name == "trackio":
        import trackio

        tracker.log({path.stem: trackio.Image(str(path))}, step=step)
    elif hasattr(tracker, "log_images"):
        # wandb takes nothing for a step that it has passed, and counts on by itself.
        at = None if tracker.name == "wandb" else step
        import numpy as np
        from PIL import Image

        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
        if tracker.name == "tensorboard":
            tracker.log_images({path.stem: image[None]}, step=at, dataformats="NHWC")
        else:
            single = tracker.name in ("aim", "clearml")
            tracker.log_images({path.stem: image if single else [image]}, step=at)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
