"""Experiment trackers besides ``metrics.jsonl``: Accelerate's trackers, with resuming and pictures.

A run's folder records the arguments by which each tracker finds its run. A resumed run continues in the
tracker's run and does not log steps twice. A tracker that cannot find its run starts a new one at the
checkpoint's step.
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
# Arguments by which a tracker finds a run, from its own object for the run. TensorBoard only needs the
# folder.
_GO_ON: dict[str, Callable[[Any], dict[str, str]]] = {
    "mlflow": lambda run: {"run_id": run.info.run_id},
    "tensorboard": lambda run: {},
    "trackio": lambda run: {"name": run.name, "resume": "allow"},
    "wandb": lambda run: {"id": run.id, "resume": "allow"},
}
_UNNAMEABLE = re.compile(r"[^\w./: -]")  # in a name, for MLflow; `standardize` has a key `*`
_log = logging.getLogger("ccl")


def need_trackers(names: Sequence[str]) -> None:
    """Raise a SystemSetupError if a tracker is not installed."""
    available = {str(each) for each in get_available_trackers()}
    for name in names:
        if name not in available:
            package = "'ccl-cli[trackers]'" if name in _IN_EXTRA else name
            raise SystemSetupError(
                f"The tracker {name} is not installed.", f"Install it with `pip install {package}`."
            )


@contextmanager
def tracking(accelerator: Accelerator, recipe: Recipe, run: RunFolder) -> Iterator[None]:
    """Start the recipe's trackers for calls of ``accelerator.log``. A collective call.

    Figures that are logged without a step are final figures of the run. Raises a SystemSetupError if a
    tracker does not start.
    """
    if not recipe.train.trackers:
        yield
        return
    with redirect_stdout(sys.stderr):  # trackers print, and stdout is for results
        try:
            on_main(lambda: _start(accelerator, recipe, run))
            yield
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            accelerator.trackers.clear()


class Tracked:
    """Wraps a tracker of Accelerate. It logs no step twice, and its failure does not end the training.

    ``logged`` is the last step that was logged to it (-1: none), ``step`` the last step of the run.
    """

    def __init__(self, tracker: Any, logged: int, step: int) -> None:
        self.name: str = tracker.name
        # In MLflow, `ce` and `ce/audio:cnn14` would be a file and a folder with the same name.
        self._separator = "." if self.name == "mlflow" else "/"
        self._tracker, self._logged, self._step, self._open = tracker, logged, max(step, 0), True

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log figures of a step or, without a step, of the whole run."""
        named = {name.replace("/", self._separator): value for name, value in values.items()}
        if step is None and self.name == "wandb":  # does not accept figures for an earlier step
            self._attempt(lambda: self._tracker.tracker.summary.update(named))
        elif step is None:
            self._attempt(lambda: self._tracker.log(named, step=self._step))
        elif step > self._logged:
            self._step = step
            self._attempt(lambda: self._tracker.log(named, step=step))

    def log_picture(self, path: Path) -> None:
        """Log a PNG file at the current step, under its name without suffix."""
        self._attempt(lambda: _log_picture(self._tracker, path, self._step))

    def finish(self) -> None:
        """Close the tracker."""
        self._attempt(self._tracker.finish)
        self._open = False

    def _attempt(self, action: Callable[[], object]) -> None:
        if not self._open:
            return
        try:
            action()
        except Exception as error:  # any error of a service or its client
            self._open = False
            _log.warning("The tracker %s failed and is not used further: %s", self.name, _reason(error))
            with suppress(Exception):
                self._tracker.finish()


def log_picture(accelerator: Accelerator, path: Path) -> None:
    """Log a PNG file to all trackers."""
    for tracker in accelerator.trackers:
        tracker.log_picture(path)


def _start(accelerator: Accelerator, recipe: Recipe, run: RunFolder) -> None:
    record, last = read_json(run.path / TRACKERS), max((step for step, _ in run.metrics()), default=-1)
    for name in recipe.train.trackers:
        continues = name in record and name in _GO_ON
        tracker = _make(name, recipe, run, record.get(name, {}))
        try:
            tracker.start()
            if not continues or name == "trackio":  # trackio loses the configuration otherwise
                tracker.store_init_configuration(_configuration(recipe))
            go_on = _GO_ON[name](tracker.tracker) if name in _GO_ON else {}
        except Exception as error:
            raise SystemSetupError(
                f"The tracker {name} does not start: {_reason(error)}.",
                "Set it up as its documentation says, or turn it off: --set train.trackers=[].",
            ) from error
        accelerator.trackers.append(Tracked(tracker, last if continues else -1, last))
        record[name] = go_on
    write_text(run.path / TRACKERS, json.dumps(record) + "\n")


def _make(name: str, recipe: Recipe, run: RunFolder, go_on: Mapping[str, str]) -> Any:
    """Create Accelerate's tracker: the project is named after the recipe, the run after its folder."""
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
            # Do not record the terminal output, which contains the progress bar.
            "settings": {"console": "off", "silent": not _log.isEnabledFor(logging.INFO)},
        },
    }
    project = {"aim": title, "tensorboard": "log"}.get(name, recipe.name)
    return LOGGER_TYPE_TO_CLASS[name](project, **{**options.get(name, {}), **go_on})


def _configuration(recipe: Recipe) -> dict[str, bool | int | float | str]:
    """The recipe as a flat mapping of plain values, without sections for other purposes."""
    sections = recipe.without(("description", "methods", "bench", "executor"))
    values = {"hash": recipe.hash(), "method": recipe.method_label, **flat(sections)}
    plain = (bool, int, float, str)
    return {
        _UNNAMEABLE.sub("_", key): value if isinstance(value, plain) else json.dumps(value)
        for key, value in values.items()
    }


def _log_picture(tracker: Any, path: Path, step: int) -> None:
    """Log a picture in the tracker's own way; Accelerate supports none for MLflow and Trackio."""
    if tracker.name == "mlflow":
        tracker.log_artifact(str(path))
    elif tracker.name == "trackio":
        import trackio

        tracker.log({path.stem: trackio.Image(str(path))}, step=step)
    elif hasattr(tracker, "log_images"):
        # wandb does not accept an earlier step, and counts steps by itself.
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
