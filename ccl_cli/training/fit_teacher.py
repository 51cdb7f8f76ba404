"""``ccl teachers fit``: training of a teacher with the labels of a data set, on its own modality."""

from __future__ import annotations

import logging
import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccl_cli import registry
from ccl_cli.config.recipe import Clip, Optim, Recipe
from ccl_cli.config.spec import Spec, parse_model
from ccl_cli.data.clips.batch import TeacherInput
from ccl_cli.data.clips.dataset import TeacherClips, TrainingClips, clip_loader, split_rows
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.manifest import Manifest, check_unreadable
from ccl_cli.data.sources import load_data
from ccl_cli.errors import CclError, DataError, PluginError, SystemSetupError, UsageError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.fitted import Fitted, as_fitted, default_path, save_fitted
from ccl_cli.training.optim import scheduler
from ccl_cli.utils.progress import Reporter

_log = logging.getLogger("ccl")
_HOOKS = ("to_fit", "class_scores", "own_weights")
_MAX_UNREADABLE = Recipe.model_fields["max_unreadable"].default
_SCRATCH_LR, _ADAPT_LR = 3e-3, 1e-4  # from random and from pretrained weights


class Fittable(Teacher):
    """Methods that a teacher's class needs, besides the teacher's contract, to be fitted."""

    @classmethod
    @abstractmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """Build the teacher with a new classifier for ``classes``.

        It starts from its pretrained weights; with ``weights=random``, or if there are none, from random
        ones.
        """

    @abstractmethod
    def class_scores(self, x: Tensor) -> Tensor:
        """Class scores before softmax: ``[B, *preprocess.shape]`` to ``[B, len(classes)]``."""

    @abstractmethod
    def own_weights(self) -> Mapping[str, Tensor]:
        """The tensors that ``from_spec`` loads from a file."""


@dataclass(frozen=True)
class FitOptions:
    """Training options. Without ``lr``, it is 0.003 from random weights, and 0.0001 from pretrained ones."""

    epochs: int = 30
    lr: float | None = None
    batch_size: int = 32
    seed: int = 0
    workers: int = 2


@dataclass(frozen=True)
class Score:
    """Accuracy, in [0, 1], on the videos of a split that have the teacher's modality."""

    split: str
    accuracy: float
    videos: int


@dataclass(frozen=True)
class FitReport:
    """Weights file, classes, accuracy in the last epoch (in training mode) and held out, and seconds.

    Held-out is the test split, or else the validation split; None if no video in it has the modality.
    """

    path: Path
    classes: tuple[str, ...]
    train: Score
    held_out: Score | None
    seconds: float


def fit_teacher(
    name: str | Spec, data: str, output: Path | None = None, options: FitOptions | None = None
) -> FitReport:
    """Train a teacher to classify the videos of a data set by its own modality, and save it.

    In each epoch, the teacher gets a random clip of every video, as in the training of students. Held-out
    videos are scored on their centre clips.

    Args:
        name: Teacher, in the form of ``--teacher``, with options of its network and preprocessing.
        data: Data set, in the form of ``--data``.
        output: File to write; None: a file in the cache, named after teacher and data set.
        options: Training options.

    Raises:
        PluginError: the teacher cannot be trained.
        DataError: no video has the teacher's modality, or too many videos cannot be read.
        CclError: any other error that the user can fix; no file is written.
    """
    options = options or FitOptions()
    spec = parse_model(name) if isinstance(name, str) else name
    plugin = registry.find(registry.TEACHERS, spec.label)
    cls = registry.load(plugin)
    if not all(hasattr(cls, hook) for hook in _HOOKS):
        raise PluginError(
            f"{spec.label} cannot be fitted: it has nothing to train.",
            "A teacher's class needs to_fit, class_scores and own_weights.",
        )
    spec, _ = as_fitted(spec)  # a fitted teacher keeps its options
    manifest = load_data(data).labelled()
    manifest.validate()
    path = output or default_path(spec.kind, spec.name, manifest.name)
    if path.suffix != ".safetensors":
        raise UsageError(
            f"'{path}' does not end in .safetensors, the format of weights.", "Correct --output."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemSetupError(f"Cannot write to '{path.parent}': {error.strerror}.") from error
    torch.manual_seed(options.seed)
    with registry.blaming(plugin):
        teacher: Fittable = cls.to_fit(spec, manifest.classes).requires_grad_(True)
    session = _Session(spec.label, teacher, manifest, options)
    began = time.perf_counter()
    train = session.train()
    report = FitReport(path, manifest.classes, train, session.held_out(), time.perf_counter() - began)
    _save(report, spec, teacher, manifest)
    return report


class _Session:
    """Training and scoring of one teacher on one data set."""

    def __init__(self, label: str, teacher: Fittable, manifest: Manifest, options: FitOptions) -> None:
        self.label, self.manifest, self.options = label, manifest, options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.loading: dict[str, Any] = {"workers": options.workers, "pin_memory": self.device.type == "cuda"}
        self.teacher = teacher.to(self.device)
        # One frame per clip, because teachers look at sound or at a single frame.
        self.clip = Clip(frames=1)
        self.preprocess = {label: teacher.preprocess}

    def train(self) -> Score:
        """Train all epochs; return the accuracy in the last one."""
        options, split = self.options, _Split(self.manifest, "train")
        sampler = EpochSampler(len(split.videos), options.batch_size, options.epochs, options.seed)
        dataset = TrainingClips(split.videos, self.clip, self.preprocess, options.seed)
        lr = options.lr or (_SCRATCH_LR if self.teacher.random_weights else _ADAPT_LR)
        optimizer = torch.optim.AdamW(self.teacher.parameters(), lr)
        optim = Optim(lr=lr, schedule="cosine", warmup_epochs=options.epochs / 10, min_lr=lr / 1000)
        schedule = scheduler(optimizer, optim, options.epochs, sampler.steps_per_epoch)
        nn.Module.train(self.teacher)  # a teacher's own `train` keeps evaluation mode
        with Reporter("fit", sampler.total_steps) as reporter:
            for step, loaded in enumerate(clip_loader(dataset, sampler, **self.loading)):
                if loaded.unreadable:
                    split.leave_out(loaded.unreadable)
                inputs, labels = self._present(loaded.batch.inputs[self.label], loaded.batch.labels)
                if step % sampler.steps_per_epoch == 0:
                    split.correct = split.count = 0
                schedule.step_update(step)
                if len(labels) > 1:  # batch normalisation needs two samples
                    split.add(self._step(inputs, labels, optimizer), labels)
                reporter.advance(text=f"acc {split.correct / max(split.count, 1):.0%}")
            reporter.line()
        score = split.score()
        if score is None:
            raise DataError(f"No training video of '{self.manifest.name}' has the modality of {self.label}.")
        self.teacher.freeze()
        return score

    def held_out(self) -> Score | None:
        """Accuracy on the centre clips of the test split, or else the validation split."""
        name = next((name for name in ("test", "val") if self.manifest.split(name)), None)
        if name is None:
            return None
        split = _Split(self.manifest, name)
        dataset = TeacherClips(split.videos, self.clip, self.preprocess)
        batches = split_rows(range(len(split.videos)), self.options.batch_size)
        with torch.inference_mode():
            for batch in clip_loader(dataset, batches, **self.loading):
                if batch.unreadable:
                    split.leave_out({row: why[self.label] for row, why in batch.unreadable.items()})
                labels = torch.tensor([split.videos[row].target for row in batch.rows.tolist()])
                inputs, labels = self._present(batch.inputs[self.label], labels)
                if len(labels):
                    split.add(self.teacher.class_scores(inputs), labels)
        return split.score()

    def _present(self, given: TeacherInput, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the samples with the teacher's modality, on the device."""
        value, present, labels = (
            each.to(self.device, non_blocking=True) for each in (given.value, given.present, labels)
        )
        return value[present], labels[present]

    def _step(self, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        """Take a step; return the class scores before it."""
        scores = self.teacher.class_scores(inputs)
        loss = F.cross_entropy(scores.float(), labels)
        if not math.isfinite(loss.item()):
            raise CclError(f"The loss of {self.label} is not finite.", "Lower --lr.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return scores


class _Split:
    """One split of the data set: its existing videos, the unreadable ones, and the number of correct ones."""

    def __init__(self, manifest: Manifest, name: str) -> None:
        self.manifest, self.name, self.missing = manifest, name, manifest.missing(name)
        self.videos = manifest.split(name).without(self.missing)
        self.unreadable: dict[int, str] = {}
        self.correct = self.count = 0
        self.leave_out({})

    def leave_out(self, unreadable: Mapping[int, str]) -> None:
        """Note unreadable videos, given as reasons by row. Raises a DataError if there are too many."""
        self.unreadable |= unreadable
        bad = [*self.missing, *(self.videos[row] for row in self.unreadable)]
        check_unreadable(len(bad), self.manifest, self.name, _MAX_UNREADABLE, bad)

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count the correct ones of some videos."""
        self.correct += int((scores.argmax(dim=1) == labels).sum())
        self.count += len(labels)

    def score(self) -> Score | None:
        """Accuracy, None without any video that has the modality. Warns about videos that were left out."""
        bad = [*(f"'{video.path}' is not there." for video in self.missing), *self.unreadable.values()]
        if bad:
            _log.warning(
                "%d of %d %s videos are left out, because they cannot be read: %s",
                len(bad),
                len(self.manifest.split(self.name)),
                self.name,
                bad[0],
            )
        return Score(self.name, self.correct / self.count, self.count) if self.count else None


def _save(report: FitReport, spec: Spec, teacher: Fittable, manifest: Manifest) -> None:
    options = {name: value for name, value in spec.options.items() if name != "weights"}
    fitted = Fitted(
        teacher=spec.label,
        classes=manifest.classes,
        options=options,
        dim=teacher.dim,
        preprocess=repr(teacher.preprocess),
        data=manifest.name,
        manifest=manifest.hash,
    )
    score = report.held_out
    records = {"accuracy": {score.split: score.accuracy}} if score else {}
    try:
        save_fitted(report.path, fitted, teacher.own_weights(), **records)
    except OSError as error:
        raise SystemSetupError(f"Cannot write '{report.path}': {error.strerror or error}.") from error
