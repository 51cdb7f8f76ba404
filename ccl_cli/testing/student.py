"""What ccl relies on in a student, tried on random clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccl_cli.students import Student, StudentFactory, StudentOutput
from ccl_cli.testing.verdicts import Checks, Skip, Unmet, Verdict, expect, expect_movable
from ccl_cli.training.build import make_student

_CLASSES = 7
_SIZE, _OTHER_SIZE = (4, 64, 64), (8, 96, 96)  # frames, height, width


class Trial:
    """A student with random weights, in evaluation mode, and how to build another one."""

    def __init__(self, build: Callable[[], Student]) -> None:
        self.build = build
        self.student = self.seeded(0)

    def seeded(self, seed: int) -> Student:
        """One whose initial weights are drawn from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().eval()

    @cached_property
    def output(self) -> StudentOutput:
        """Of two clips."""
        return self.run(_clips(_SIZE))

    def run(self, video: Tensor) -> StudentOutput:
        """Without gradient."""
        with torch.no_grad():
            return self.student(video)  # type: ignore[no-any-return]


check = Checks[Trial]()


def verdicts(student: StudentFactory | str) -> Iterator[Verdict]:
    """Try a student, by its spec or by the function that builds it."""
    if isinstance(student, str):
        yield from check.verdicts(Trial(partial(make_student, student, _CLASSES)))
    else:
        yield from check.verdicts(Trial(partial(student, _CLASSES)))


@check("attributes")
def _attributes(trial: Trial) -> None:
    dim = getattr(trial.student, "feature_dim", None)
    expect(isinstance(dim, int) and dim > 0, "feature_dim, the width of its feature", repr(dim), "Set it.")
    classes = getattr(trial.student, "num_classes", None)
    expect(classes == _CLASSES, f"num_classes = {_CLASSES}, as asked for", repr(classes), "Set it.")


@check("output", needs=("attributes",))
def _output(trial: Trial) -> None:
    out = trial.output
    expect(isinstance(out, StudentOutput), "a StudentOutput", type(out).__name__, "Return one from forward.")
    shapes = tuple(out.feature.shape), tuple(out.logits.shape)
    wanted = (2, trial.student.feature_dim), (2, _CLASSES)
    expect(
        shapes == wanted,
        f"a feature {list(wanted[0])} and logits {list(wanted[1])}",
        f"{list(shapes[0])} and {list(shapes[1])}",
        "Pool over the whole clip, and make the classifier num_classes wide.",
    )
    finite = bool(out.feature.isfinite().all() and out.logits.isfinite().all())
    expect(finite, "finite numbers", "NaN or infinity", "Look at its divisions.")


@check("stages", needs=("output",))
def _stages(trial: Trial) -> None:
    if not trial.output.stages:
        raise Skip("it shows none: methods that compare inner stages cannot train it")
    wrong = [list(each.shape) for each in trial.output.stages if each.dim() != 5 or len(each) != 2]
    expect(not wrong, "stages of [B, C, T, H, W]", str(wrong[:1]), "Take them before pooling.")


@check("clip sizes", needs=("output",))
def _clip_sizes(trial: Trial) -> None:
    shape = tuple(trial.run(_clips(_OTHER_SIZE)).feature.shape)
    expect(
        shape == (2, trial.student.feature_dim),
        "the same width of feature for a longer and larger clip",
        str(list(shape)),
        "Pool adaptively: nn.AdaptiveAvgPool3d(1).",
    )


@check("determinism", needs=("output",))
def _determinism(trial: Trial) -> None:
    same = torch.equal(trial.run(_clips(_SIZE)).logits, trial.output.logits)
    expect(
        same, "the same scores of the same clip in evaluation", "other ones", "Leave nothing random there."
    )


@check("batch", needs=("determinism",))
def _batch(trial: Trial) -> None:
    alone = torch.cat([trial.run(clip[None]).logits for clip in _clips(_SIZE)])
    whole = trial.output.logits
    apart = float((alone - whole).abs().max() / whole.abs().max().clamp(min=1e-6))
    expect(
        apart < 1e-3,
        "scores that do not depend on the other clips in evaluation",
        f"a difference of {apart:.1%}",
        "Use statistics that are stored, not the batch's.",
    )


@check("gradient", needs=("output",))
def _gradient(trial: Trial) -> None:
    student = trial.seeded(0).train()
    out: StudentOutput = student(_clips(_SIZE))
    (out.logits.square().sum() + out.feature.square().sum()).backward()  # type: ignore[no-untyped-call]
    without = [name for name, each in student.named_parameters() if each.requires_grad and each.grad is None]
    expect(
        not without,
        "a gradient for every parameter",
        f"none for {', '.join(without[:3])}",
        "Leave out what forward does not use: several processes would wait for its gradient.",
    )


@check("seed")
def _seed(trial: Trial) -> None:
    again = trial.seeded(0).state_dict()
    other = [name for name, each in trial.student.state_dict().items() if not torch.equal(each, again[name])]
    expect(
        not other,
        "the same initial weights from the same seed",
        f"others in {', '.join(other[:3])}",
        "Draw them with torch's own generator.",
    )


@check("published file", needs=("determinism",))
def _published_file(trial: Trial) -> None:
    other = trial.seeded(1)
    with TemporaryDirectory(prefix="ccl-student-") as folder:
        path = Path(folder) / "model.safetensors"
        try:
            save_file({name: each.contiguous() for name, each in trial.student.state_dict().items()}, path)
        except RuntimeError as error:
            raise Unmet(
                "tensors that can be saved by name", str(error).split("\n")[0], "Do not tie weights."
            ) from error
        other.load_state_dict(load_file(path))
    with torch.no_grad():
        same = torch.equal(other(_clips(_SIZE)).logits, trial.output.logits)
    expect(
        same,
        "the same scores after saving and loading",
        "other ones",
        "Keep everything that decides them in parameters and persistent buffers.",
    )


@check("device")
def _device(trial: Trial) -> None:
    expect_movable(trial.student)


def _clips(size: tuple[int, int, int]) -> Tensor:
    """[2, 3, T, H, W], normalised."""
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
