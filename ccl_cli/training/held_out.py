"""Scores on held-out videos during training: when they are taken, the best weights, and early stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from torch import Tensor

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.manifest import Manifest, check_unreadable
from ccl_cli.errors import RecipeError
from ccl_cli.students import Student

if TYPE_CHECKING:
    from ccl_cli.training.build import Parts
    from ccl_cli.training.trainer import Trainer

# Evaluates a student on the held-out split: ``top1`` and ``r1`` in percent, and ``loss``, equal on all
# processes.
Score = Callable[[Recipe, "Parts", Student, Accelerator], Mapping[str, float]]
SCORE_TITLES = {"top1": "top-1", "loss": "loss", "r1": "R@1"}
LOGGED = {f"{split}_{name}" for name in SCORE_TITLES for split in ("val", "test")}  # in metrics.jsonl
_log = logging.getLogger("ccl")


class HeldOut:
    """Scores of a run, which are part of its checkpoints.

    Attributes:
        latest: Figures of the last evaluation.
        best: Step and figures of the best evaluation and, with ``keep: best``, its weights.
        waited: Number of evaluations since the best one.
    """

    def __init__(self, recipe: Recipe, score: Score | None = None) -> None:
        self.train, self._score = recipe.train, score
        # If scores choose nothing, a resumed run may score other videos or clips.
        self._scored_on = [self.train.eval_split, recipe.eval.model_dump(mode="json")]
        self.latest: Mapping[str, float] = {}
        self.best: dict[str, Any] = {}
        self.waited = 0

    def due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether to evaluate after a step: at the end of every ``eval_every``-th and of the last epoch."""
        epoch, rest = divmod(step, steps_per_epoch)
        every = self.train.eval_every
        return bool(every) and not rest and (epoch % every == 0 or epoch == self.train.epochs)

    @property
    def exhausted(self) -> bool:
        """Whether the run should end, after ``patience`` evaluations without a better one."""
        return 0 < self.train.patience <= self.waited

    def evaluate(self, trainer: Trainer, write: Callable[[Mapping[str, Any]], None]) -> None:
        """Score the student that would be published now, and log the figures with ``write``.

        A collective call; it does not change later steps.
        """
        assert self._score is not None
        student = next(iter(trainer.students.values()))
        self.latest = self._score(trainer.recipe, trainer.parts, student, trainer.accelerator)
        self.waited += 1
        if better := self._is_better():
            self.waited = 0
            self.best = {"step": trainer.step, "figures": dict(self.latest)}
            if self.train.keep == "best":
                self.best["weights"] = {name: _copied(each) for name, each in trainer.students.items()}
        figures = {f"{self.train.eval_split}_{name}": value for name, value in self.latest.items()}
        write({"step": trainer.step, "epoch": trainer.step // trainer.steps_per_epoch, **figures})
        trainer.accelerator.log(figures, step=trainer.step)
        _log.info("step %d:%s%s", trainer.step, self.text, ", the best so far" if better else "")
        if self.exhausted:
            _log.info("%d evaluations without a better one: the run ends here.", self.waited)

    @property
    def text(self) -> str:
        """The latest figures, for the progress line."""
        figures = {name: f"{value:.3f}" for name, value in self.latest.items() if name == "loss"}
        figures |= {name: f"{value:.1f}%" for name, value in self.latest.items() if name != "loss"}
        split = self.train.eval_split
        return "".join(f"  {split} {SCORE_TITLES[name]} {text}" for name, text in figures.items())

    def restore_best(self, students: Mapping[str, Student]) -> dict[str, Any]:
        """Load the best weights if they are to be published; return entries for the header of the file."""
        if "weights" not in self.best:
            return {}
        for name, student in students.items():
            student.load_state_dict(self.best["weights"][name])
        choice = f"best {SCORE_TITLES[self.train.keep_by]} on {self.train.eval_split}"
        return {"step": self.best["step"], "selection": choice}

    def summary(self) -> dict[str, Any]:
        """Entries for ``summary.json``; empty if nothing was scored."""
        if not self.latest:
            return {}
        best = {key: self.best[key] for key in ("step", "figures") if key in self.best}
        record = {"split": self.train.eval_split, "latest": dict(self.latest), "best": best}
        return {"held_out": {**record, "keep_by": self.train.keep_by, "stopped_early": self.exhausted}}

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint, equal on all processes."""
        return {"latest": dict(self.latest), "best": self.best, "waited": self.waited, "of": self._scored_on}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`, unless its scores are of other videos or clips."""
        if state["of"] == self._scored_on:
            self.latest, self.best, self.waited = state["latest"], state["best"], state["waited"]

    def _is_better(self) -> bool:
        name = self.train.keep_by
        value, best = self.latest.get(name, math.nan), self.best.get("figures", {}).get(name)
        if best is None:
            return math.isfinite(value)
        return bool(value < best if name == "loss" else value > best)


def check_held_out(recipe: Recipe, manifest: Manifest, *, sees_labels: bool) -> None:
    """Check that there are videos to score on, and labels if the student is trained with labels.

    Raises:
        RecipeError: the split is empty, or the score needs classes that the student does not have.
        DataError: the videos have no labels, or too many of them are missing.
    """
    train, split = recipe.train, recipe.train.eval_split
    if not train.eval_every:
        return
    if not sees_labels and recipe.train.keep_by != "r1":
        raise RecipeError(
            "train.eval_every: a student that is trained without labels can be scored by R@1 alone.",
            "Type --set train.eval_retrieval=true --set train.keep_by=r1.",
        )
    manifest = manifest.labelled()
    if not manifest.split(split):
        raise RecipeError(
            f"train.eval_every: the data set '{manifest.name}' has no {split} split to score on.",
            "Set training videos aside with --set holdout=0.1, or type --set train.eval_split=test.",
        )
    missing = manifest.missing(split)
    check_unreadable(len(missing), manifest, split, recipe.max_unreadable, missing)
    if split == "test" and train.chooses:
        _log.warning("The test videos choose the weights: the figures on them will flatter the run.")


def _copied(student: Student) -> dict[str, Tensor]:
    """A copy of the weights on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in student.state_dict().items()}
