"""Checks of students on random clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccl_cli.errors import RecipeError
from ccl_cli.students import Student, StudentFactory, StudentOutput
from ccl_cli.testing.verdicts import Checks, Skip, Unmet, Verdict, expect, expect_finite, expect_movable
from ccl_cli.training.build import make_student

_CLASSES = 7
_SIZE, _OTHER_SIZE = (4, 64, 64), (8, 96, 96)  # frames, height, width


class Trial:
    """A student with random weights in evaluation mode, and its factory."""

    def __init__(self, build: Callable[[], Student]) -> None:
        self.build = build
        self.student = self.seeded(0)

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width of the clips: small if the student supports it."""
        try:
            self.student.check_clip(*_SIZE[:2])
        except RecipeError:
            frames, side = self.student.usual_clip
            return frames, side, side
        return _SIZE

    def seeded(self, seed: int) -> Student:
        """Build a student with weights from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().eval()

    @cached_property
    def output(self) -> StudentOutput:
        """Output for two clips."""
        return run(self.student, _clips(self.size))


check = Checks[Trial]()


def verdicts(student: StudentFactory | str) -> Iterator[Verdict]:
    """Check a student, given by its name or factory."""
    build = partial(make_student, student) if isinstance(student, str) else student
    yield from check.verdicts(Trial(partial(build, _CLASSES)))


def run(student: Student, video: Tensor) -> StudentOutput:
    """Run a student without gradients."""
    with torch.no_grad():
        return student(video)  # type: ignore[no-any-return]


@check()
def _attributes(trial: Trial) -> None:
    dim, classes = (getattr(trial.student, name, None) for name in ("feature_dim", "num_classes"))
    expect(
        isinstance(dim, int) and dim > 0, f"feature_dim is {dim!r}. Set it to the dimension of the feature."
    )
    expect(classes == _CLASSES, f"num_classes is {classes!r} instead of the requested {_CLASSES}. Set it.")


@check("attributes")
def _output(trial: Trial) -> None:
    out = trial.output
    expect(isinstance(out, StudentOutput), f"forward returns a {type(out).__name__}, not a StudentOutput.")
    shapes = [list(out.feature.shape), list(out.logits.shape)]
    expected = [[2, trial.student.feature_dim], [2, _CLASSES]]
    expect(
        shapes == expected,
        f"feature and logits of {shapes} instead of {expected}. "
        "Pool over the whole clip, and make the classifier num_classes wide.",
    )
    expect_finite(out.feature, out.logits, of="in its output")


@check("output")
def _stages(trial: Trial) -> None:
    if not trial.output.stages:
        raise Skip("it has none; methods that compare stages cannot train it")
    wrong = [list(each.shape) for each in trial.output.stages if each.dim() != 5 or len(each) != 2]
    expect(not wrong, f"a stage of {wrong[:1]} instead of [B, C, T, H, W]. Take stages before pooling.")


@check("output")
def _clip_sizes(trial: Trial) -> None:
    try:
        trial.student.check_clip(*_OTHER_SIZE[:2])
    except RecipeError as error:
        raise Skip("it supports fixed clip sizes only") from error
    shape = list(run(trial.student, _clips(_OTHER_SIZE)).feature.shape)
    expect(
        shape == [2, trial.student.feature_dim],
        f"a feature of {shape} for a longer and larger clip. Pool adaptively: nn.AdaptiveAvgPool3d(1).",
    )


@check("output")
def _determinism(trial: Trial) -> None:
    same = torch.equal(run(trial.student, _clips(trial.size)).logits, trial.output.logits)
    expect(same, "different scores for the same clip in evaluation mode. Remove the randomness.")


@check("determinism")
def _batch(trial: Trial) -> None:
    alone = torch.cat([run(trial.student, clip[None]).logits for clip in _clips(trial.size)])
    whole = trial.output.logits
    difference = float((alone - whole).abs().max() / whole.abs().max().clamp(min=1e-6))
    expect(
        difference < 1e-3,
        f"scores that depend on the other clips of a batch in evaluation mode, by {difference:.1%}. "
        "Use running statistics instead of batch statistics.",
    )


@check("output")
def _gradient(trial: Trial) -> None:
    student = trial.seeded(0).train()
    out: StudentOutput = student(_clips(trial.size))
    (out.logits.square().sum() + out.feature.square().sum()).backward()  # type: ignore[no-untyped-call]
    without = [name for name, each in student.named_parameters() if each.requires_grad and each.grad is None]
    expect(
        not without,
        f"parameters without a gradient: {', '.join(without[:3])}. "
        "Remove unused layers; otherwise distributed training waits for their gradients.",
    )


@check()
def _seed(trial: Trial) -> None:
    again = trial.seeded(0).state_dict()
    other = [name for name, each in trial.student.state_dict().items() if not torch.equal(each, again[name])]
    expect(
        not other,
        f"different initial weights for the same seed: {', '.join(other[:3])}. Use torch's global generator.",
    )


@check("determinism")
def _published_file(trial: Trial) -> None:
    other = trial.seeded(1)
    with TemporaryDirectory(prefix="ccl-student-") as folder:
        path = Path(folder) / "model.safetensors"
        try:
            save_file({name: each.contiguous() for name, each in trial.student.state_dict().items()}, path)
        except RuntimeError as error:
            first_line = str(error).split("\n")[0]
            raise Unmet(f"tensors that cannot be saved by name: {first_line}. Do not tie weights.") from error
        other.load_state_dict(load_file(path))
    expect(
        torch.equal(run(other, _clips(trial.size)).logits, trial.output.logits),
        "different scores after saving and loading. Store all state in parameters and persistent buffers.",
    )


@check()
def _device(trial: Trial) -> None:
    expect_movable(trial.student)


def _clips(size: tuple[int, int, int]) -> Tensor:
    """Random clips [2, 3, T, H, W], normalised."""
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
