"""``ccl teachers fit``: training of a teacher with the labels of a data set, on its own modality."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar, cast

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
from ccl_cli.errors import CclError, DataError, PluginError, SystemSetupError, UsageError, WeightsError
from ccl_cli.teachers import Preprocess, Teacher
from ccl_cli.teachers.fitted import Fitted, as_fitted, default_path, read_fitted, save_fitted
from ccl_cli.training.optim import scheduler
from ccl_cli.utils.progress import Reporter

T = TypeVar("T")
_log = logging.getLogger("ccl")
_HOOKS = ("to_fit", "class_scores", "own_weights")
_SCRATCH_LR, _ADAPT_LR = 3e-3, 1e-4  # from random and from pretrained weights


class Fittable(Protocol):
    """Methods that a teacher's class needs, besides the teacher's contract, to be fitted."""

    @classmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """Build the teacher with a new classifier for ``classes``.

        It starts from its pretrained weights; with ``weights=random``, or if there are none, from random
        ones.
        """
        ...

    def class_scores(self, x: Tensor) -> Tensor:
        """Class scores before softmax: ``[B, *preprocess.shape]`` to ``[B, len(classes)]``."""
        ...

    def own_weights(self) -> Mapping[str, Tensor]:
        """The tensors that ``from_spec`` loads from a file."""
        ...


class _Trainee(Teacher, Fittable):
    """For the type checker: a teacher that is also fittable."""


@dataclass(frozen=True)
class FitOptions:
    """Training options.

    Attributes:
        epochs: Number of epochs.
        lr: Peak learning rate; None: 0.003 from random weights, 0.0001 from pretrained ones.
        batch_size: Videos per step.
        seed: Seed of weights, order and clips.
        workers: Number of worker processes.
    """

    epochs: int = 30
    lr: float | None = None
    batch_size: int = 32
    seed: int = 0
    workers: int = 2


@dataclass(frozen=True)
class Score:
    """Accuracy of a teacher.

    Attributes:
        split: Split of the data set.
        accuracy: Share of correct videos, in [0, 1].
        videos: Number of videos that have the modality.
    """

    split: str
    accuracy: float
    videos: int


@dataclass(frozen=True)
class FitReport:
    """Result of fitting a teacher.

    Attributes:
        path: Weights file.
        classes: Classes of the teacher.
        train: Accuracy in the last epoch, in training mode.
        held_out: Accuracy on the test split, or else the validation split; None if there is neither, or no
            video in it has the modality.
        seconds: Duration of training and scoring.
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
    _check_output(path, manifest)
    torch.manual_seed(options.seed)
    with registry.blaming(plugin):
        teacher = cast(_Trainee, cls.to_fit(spec, manifest.classes)).requires_grad_(True)
    session = _Session(spec, teacher, manifest, options)
    began = time.perf_counter()
    train = session.train()
    report = FitReport(path, manifest.classes, train, session.held_out(), time.perf_counter() - began)
    _save(report, spec, teacher, manifest)
    return report


class _Session:
    """Training and scoring of one teacher on one data set."""

    def __init__(self, spec: Spec, teacher: _Trainee, manifest: Manifest, options: FitOptions) -> None:
        self.label, self.manifest, self.options = spec.label, manifest, options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pin_memory = self.device.type == "cuda"
        self.teacher = teacher.to(self.device)
        # One frame per clip, because teachers look at sound or at a single frame.
        self.clip = Clip(frames=1)
        self.preprocess: dict[str, Preprocess] = {self.label: teacher.preprocess}

    def train(self) -> Score:
        """Train all epochs; return the accuracy in the last one."""
        options = self.options
        split = _Split(self.manifest, "train")
        sampler = EpochSampler(len(split.videos), options.batch_size, options.epochs, options.seed)
        steps, per_epoch = sampler.total_steps, sampler.steps_per_epoch
        dataset = TrainingClips(split.videos, self.clip, self.preprocess, options.seed)
        loader = clip_loader(dataset, sampler, workers=options.workers, pin_memory=self.pin_memory)
        lr = options.lr or (_SCRATCH_LR if self.teacher.random_weights else _ADAPT_LR)
        optimizer = torch.optim.AdamW(self.teacher.parameters(), lr)
        optim = Optim(lr=lr, schedule="cosine", warmup_epochs=options.epochs / 10, min_lr=lr / 1000)
        schedule = scheduler(optimizer, optim, options.epochs, per_epoch)
        nn.Module.train(self.teacher)  # a teacher's own `train` keeps evaluation mode
        correct = count = 0
        with Reporter("fit", steps) as reporter:
            for step, loaded in enumerate(loader, start=1):
                split.add(loaded.unreadable)
                inputs, labels = self._present(loaded.batch.inputs[self.label], loaded.batch.labels)
                if (step - 1) % per_epoch == 0:
                    correct = count = 0
                schedule.step_update(step - 1)
                if len(labels) > 1:  # batch normalisation needs two samples
                    correct += self._step(inputs, labels, optimizer)
                    count += len(labels)
                reporter.advance(text=f"acc {correct / max(count, 1):.0%}")
            reporter.line()
        split.warn()
        if not count:
            raise DataError(f"No training video of '{self.manifest.name}' has the modality of {self.label}.")
        self.teacher.freeze()
        return Score("train", correct / count, count)

    def held_out(self) -> Score | None:
        """Accuracy on the centre clips of the test split, or else the validation split."""
        name = next((name for name in ("test", "val") if self.manifest.split(name)), None)
        if name is None:
            return None
        split = _Split(self.manifest, name)
        loader = clip_loader(
            TeacherClips(split.videos, self.clip, self.preprocess),
            split_rows(range(len(split.videos)), self.options.batch_size),
            workers=self.options.workers,
            pin_memory=self.pin_memory,
        )
        correct = count = 0
        with torch.inference_mode():
            for batch in loader:
                split.add({row: reasons[self.label] for row, reasons in batch.unreadable.items()})
                labels = torch.tensor([split.videos[row].target for row in batch.rows.tolist()])
                inputs, labels = self._present(batch.inputs[self.label], labels)
                if len(labels):
                    correct += _count_correct(self.teacher.class_scores(inputs), labels)
                    count += len(labels)
        split.warn()
        return Score(name, correct / count, count) if count else None

    def _present(self, given: TeacherInput, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the samples with the teacher's modality, on the device."""
        value, present, labels = (
            each.to(self.device, non_blocking=True) for each in (given.value, given.present, labels)
        )
        return value[present], labels[present]

    def _step(self, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> int:
        scores = self.teacher.class_scores(inputs)
        loss = F.cross_entropy(scores.float(), labels)
        if not math.isfinite(loss.item()):
            raise CclError(f"The loss of {self.label} is not finite.", "Lower --lr.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return _count_correct(scores, labels)


class _Split:
    """One split of the data set: its existing videos, and those that cannot be read."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        self.manifest, self.split = manifest, split
        self.missing = manifest.missing(split)
        self.videos = manifest.split(split).without(self.missing)
        self.unreadable: dict[int, str] = {}
        self._check()

    def add(self, unreadable: Mapping[int, str]) -> None:
        """Count unreadable videos, given as reasons by row. Raises a DataError if there are too many."""
        if unreadable.keys() - self.unreadable.keys():
            self.unreadable.update(unreadable)
            self._check()

    def warn(self) -> None:
        """Warn about videos that were left out."""
        bad = [*(f"'{video.path}' is not there." for video in self.missing), *self.unreadable.values()]
        if bad:
            _log.warning(
                "%d of %d %s videos are left out, because they cannot be read: %s",
                len(bad),
                len(self.manifest.split(self.split)),
                self.split,
                bad[0],
            )

    def _check(self) -> None:
        bad = [*self.missing, *(self.videos[row] for row in self.unreadable)]
        limit = Recipe.model_fields["max_unreadable"].default
        try:
            check_unreadable(len(bad), self.manifest, self.split, limit, bad)
        except DataError as error:  # the limit is fixed here
            raise DataError(error.message, "Fix them, or remove them from the data set.") from None


def _count_correct(scores: Tensor, labels: Tensor) -> int:
    return int((scores.argmax(dim=1) == labels).sum())


def _check_output(path: Path, manifest: Manifest) -> None:
    """Check the output file before the training and not after it."""
    if path.suffix != ".safetensors":
        raise UsageError(
            f"'{path}' does not end in .safetensors, the format of weights.", "Correct --output."
        )
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder.", "Name a file with --output.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemSetupError(f"Cannot write to '{path.parent}': {error.strerror}.") from error
    with suppress(WeightsError):  # a damaged file may be replaced without a warning
        before = read_fitted(path) if path.is_file() else None
        if before and before.manifest != manifest.hash:
            _log.warning(
                "'%s' was fitted to other data (%s %s, now %s %s); it will be replaced.",
                path,
                before.data,
                before.manifest,
                manifest.name,
                manifest.hash,
            )


def _save(report: FitReport, spec: Spec, teacher: _Trainee, manifest: Manifest) -> None:
    options = {name: value for name, value in spec.options.items() if name != "weights"}
    fitted = Fitted(
        spec.label,
        manifest.classes,
        options,
        teacher.dim,
        repr(teacher.preprocess),
        manifest.name,
        manifest.hash,
    )
    score = report.held_out
    records = {"accuracy": {score.split: score.accuracy}} if score else {}
    try:
        save_fitted(report.path, fitted, teacher.own_weights(), **records)
    except OSError as error:
        raise SystemSetupError(f"Cannot write '{report.path}': {error.strerror or error}.") from error
