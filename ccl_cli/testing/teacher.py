"""What ccl relies on in a teacher, each part tried on real clips."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, get_args

import torch
from torch import Tensor

from ccl_cli.config.spec import parse_model
from ccl_cli.data.checks.crash_proof import Lost, run_each
from ccl_cli.data.manifest import Video
from ccl_cli.teachers import Preprocess, Teacher, Views
from ccl_cli.testing.clips import Clips, draw, evaluated, made_clips, preprocessed, single_frame
from ccl_cli.testing.verdicts import Checks, Skip, Verdict, expect, expect_movable
from ccl_cli.training.build import load_teacher

_LARGEST = 1_000_000  # bytes of a pickled preprocessing, which every worker gets
_SECONDS = 300.0  # for another process to start and preprocess one window


@dataclasses.dataclass
class Trial:
    """A frozen teacher and what it is tried on.

    Attributes:
        name: ``modality:name``.
        videos: Of which it should have embeddings.
        clips: Ours.
        rebuild: Builds it once more; None where only the object is at hand.
    """

    name: str
    teacher: Teacher
    videos: Sequence[Video]
    clips: Clips
    rebuild: Callable[[], Teacher] | None = None

    @property
    def preprocess(self) -> Preprocess:
        """The teacher's."""
        return self.teacher.preprocess

    @cached_property
    def inputs(self) -> list[Tensor]:
        """What it makes of each video that it has an input for."""
        made = (self.preprocess(evaluated(video)) for video in self.videos)
        return [value for value in made if value is not None]

    @cached_property
    def batch(self) -> Tensor:
        """[B, *shape]: all of them, and last a zero row, which stands for a video without the modality."""
        return torch.stack([*self.inputs, torch.zeros_like(self.inputs[0])])

    @cached_property
    def embedding(self) -> Tensor:
        """[B, dim] of :attr:`batch`, as it comes out of the teacher."""
        return self.embed(self.batch)

    def embed(self, x: Tensor) -> Tensor:
        """As the loop calls it."""
        with torch.inference_mode():
            return self.teacher(x)  # type: ignore[no-any-return]


check = Checks[Trial]()


def verdicts(teacher: Teacher | str, videos: Sequence[Video] = ()) -> Iterator[Verdict]:
    """Try a teacher.

    Args:
        teacher: The object, or what is typed after ``--teacher``.
        videos: Real ones that it has embeddings of; else small ones made for the purpose.

    Raises:
        CclError: it cannot be built; its own sentence.
    """
    with made_clips() as clips:
        shown = videos or clips[:2]
        if isinstance(teacher, Teacher):
            yield from check.verdicts(Trial("", teacher.freeze(), shown, clips))
        else:
            spec = parse_model(teacher)
            rebuild = partial(load_teacher, spec)
            yield from check.verdicts(Trial(spec.label, rebuild(), shown, clips, rebuild))


@check("attributes")
def _attributes(trial: Trial) -> None:
    teacher, modality = trial.teacher, trial.name.partition(":")[0]
    said = getattr(teacher, "modality", None)
    wanted = f"modality = '{modality or 'audio'}', as in its name"
    expect(said == modality if modality else bool(said), wanted, repr(said), "Set it on the class.")
    dim = getattr(teacher, "dim", None)
    expect(
        isinstance(dim, int) and dim > 0, "dim, the width of its embeddings", repr(dim), "Set it in __init__."
    )
    shape, dtype = tuple(teacher.preprocess.shape), teacher.preprocess.dtype
    expect(
        all(isinstance(side, int) and side > 0 for side in shape),
        "preprocess.shape to be whole numbers above 0",
        str(shape),
        "It is the shape of one input, without the batch.",
    )
    expect(
        isinstance(dtype, torch.dtype), "preprocess.dtype to be a torch.dtype", repr(dtype), "Name the type."
    )


@check("input", needs=("attributes",))
def _input(trial: Trial) -> None:
    expect(
        bool(trial.inputs),
        f"an input for one of {len(trial.videos)} videos",
        "None for each",
        "If it only knows certain videos, name them with --data; else return None only where it is missing.",
    )
    shape, dtype = tuple(trial.preprocess.shape), trial.preprocess.dtype
    for value in trial.inputs:
        expect(
            tuple(value.shape) == shape and value.dtype == dtype,
            f"{list(shape)} of {dtype}, as preprocess declares",
            f"{list(value.shape)} of {value.dtype}",
            "Declare what it returns, or convert.",
        )
        expect(bool(value.isfinite().all()), "finite numbers", "NaN or infinity", "Look at its divisions.")


@check("draws", needs=("input",))
def _draws(trial: Trial) -> None:
    one, again = (trial.preprocess(draw(trial.videos[0], seed=4)) for _ in range(2))
    expect(
        _same(one, again),
        "the same input from the same draw",
        "another one",
        "Take random numbers from window.rng or window.batch_rng only: then a run can be resumed exactly.",
    )


@check("evaluation", needs=("draws",))
def _evaluation(trial: Trial) -> None:
    one, other = (trial.preprocess(evaluated(trial.videos[0], seed)) for seed in (1, 2))
    expect(
        _same(one, other),
        "nothing random where window.training is False",
        "inputs that differ",
        "Take the middle instead of a random part.",
    )


@check("pickling", needs=("attributes",))
def _pickling(trial: Trial) -> None:
    packed = pickle.dumps(trial.preprocess)
    expect(
        len(packed) <= _LARGEST,
        "settings only, which are sent to every worker",
        f"{len(packed) / 1e6:.1f} MB",
        "Keep weights and tables in the network, or load them where they are needed.",
    )
    pickle.loads(packed)


@check("repr", needs=("pickling",))
def _repr(trial: Trial) -> None:
    said, wanted = repr(trial.preprocess), "a repr that names every setting and nothing else"
    mend = "A dataclass has one; caches are found by it."
    again = repr(pickle.loads(pickle.dumps(trial.preprocess)))
    expect(said == again and " at 0x" not in said, wanted, f"'{said}'", mend)
    silent = [name for name in _settings(trial.preprocess) if not _shows(trial.preprocess, name)]
    expect(not silent, wanted, f"nothing of {', '.join(silent)} in '{said}'", mend)


@check("another process", needs=("evaluation", "pickling"))
def _another_process(trial: Trial) -> None:
    video = trial.videos[0]
    job = pickle.dumps(trial.preprocess), video
    [(_, there)] = run_each([job], preprocessed, workers=1, seconds=_SECONDS)
    here = trial.preprocess(evaluated(video))
    found = there.reason if isinstance(there, Lost) else "another one"
    expect(
        not isinstance(there, Lost) and _same(here, there),
        "the same input in a loader's process",
        found,
        "Let it depend on its own settings only, not on what this process has set up.",
    )


@check("views", needs=("evaluation",))
def _views(trial: Trial) -> None:
    declared = getattr(trial.preprocess, "views", None)
    if declared is None:
        raise Skip("it declares none: its embeddings are never cached")
    known = " or ".join(f"'{name}'" for name in get_args(Views))
    expect(declared in get_args(Views), known, repr(declared), "Correct it or leave it out.")
    (_single if declared == "frame" else _whole)(trial)


@check("missing modality", needs=("input",))
def _missing(trial: Trial) -> None:
    heard = False
    for video in (trial.clips.mute, trial.clips.silent):
        window, other = draw(video), draw(trial.clips.other, seed=1)
        value = trial.preprocess(window)
        heard = heard or "audio" in window.states
        if value is None or "audio" not in window.states:
            continue
        window = draw(video)  # the same sound, or none, under another picture
        window.frames, window.student_view = other.frames, other.student_view
        expect(
            not _same(value, trial.preprocess(window)),
            "None for a video without sound",
            "an input",
            "Return None where window.audio returns None: the row is then marked as absent.",
        )
    if not heard:
        raise Skip("it does not listen, and a window always has a picture")


@check("embedding", needs=("input",))
def _embedding(trial: Trial) -> None:
    made, shape = trial.embedding, (len(trial.batch), trial.teacher.dim)
    expect(
        tuple(made.shape) == shape,
        f"{list(shape)}, one row of dim numbers for each input",
        str(list(made.shape)),
        "Correct dim or forward.",
    )
    expect(made.is_floating_point(), "floating-point numbers", str(made.dtype), "End forward with .float().")
    there = made[: len(trial.inputs)]
    expect(
        bool(there.isfinite().all()),
        "finite numbers",
        "NaN or infinity",
        "Look at its divisions and its type.",
    )


@check("tells apart", needs=("embedding",))
def _tells_apart(trial: Trial) -> None:
    if len(trial.inputs) < 2:
        raise Skip("it has an input for one video only")
    first, second = trial.embedding[:2]
    expect(
        not torch.equal(first, second),
        "embeddings of different videos to differ",
        "one for all",
        "See whether forward looks at its input.",
    )


@check("determinism", needs=("embedding",))
def _determinism(trial: Trial) -> None:
    expect(
        torch.equal(trial.embedding, trial.embed(trial.batch)),
        "the same embedding of the same input",
        "another one",
        "Nothing may be random in forward: no noise, no dropout that evaluation mode leaves on.",
    )


@check("batch", needs=("determinism",))
def _batch(trial: Trial) -> None:
    alone = torch.cat([trial.embed(value[None]) for value in trial.inputs])
    whole = trial.embedding[: len(trial.inputs)]
    scale = max(1e-6, float(whole.abs().max()))
    apart = float((alone - whole).abs().max()) / scale
    expect(
        apart < 1e-3,
        "an embedding that does not depend on the others in its batch",
        f"a difference of {apart:.1%}",
        "Use statistics that are stored (batch norm in evaluation mode), not the batch's.",
    )


@check("evaluation mode", needs=("embedding",))
def _evaluation_mode(trial: Trial) -> None:
    kept = [buffer.clone() for buffer in trial.teacher.buffers()]
    trial.teacher.train()
    trial.embed(trial.batch)
    training = [name or "itself" for name, module in trial.teacher.named_modules() if module.training]
    trial.teacher.eval()
    for buffer, before in zip(trial.teacher.buffers(), kept, strict=True):
        buffer.copy_(before)  # in training mode, batch norm has counted ours in
    expect(
        not training,
        "evaluation mode, always",
        f"training mode after train() and forward: {', '.join(training[:3])}",
        "Leave train() as ccl_cli.teachers.Teacher has it, and call it nowhere.",
    )


@check("no gradient")
def _no_gradient(trial: Trial) -> None:
    learning = [name for name, each in trial.teacher.named_parameters() if each.requires_grad]
    expect(
        not learning,
        "a frozen network",
        f"parameters that want a gradient: {', '.join(learning[:3])}",
        "Leave freeze() as it is, and end from_spec with `return teacher.freeze()`.",
    )


@check("fingerprint")
def _fingerprint(trial: Trial) -> None:
    tensors = trial.teacher.state_dict()
    if not tensors:
        raise Skip("it has no weights")
    before = _fresh_fingerprint(trial.teacher)
    expect(
        before == _fresh_fingerprint(trial.teacher),
        "a fingerprint that stays",
        "another one",
        "Hash what is fixed.",
    )
    names = list(tensors)
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        with _changed(tensors[name]):
            after = _fresh_fingerprint(trial.teacher)
        expect(
            after != before,
            f"another fingerprint when '{name}' changes",
            "the same",
            "Leave fingerprint as it is, or hash all weights: a stale cache would be taken for a fresh one.",
        )


@check("built twice")
def _built_twice(trial: Trial) -> None:
    if trial.rebuild is None:
        raise Skip("needs a name instead of an object")
    again = trial.rebuild()
    expect(
        again.fingerprint == _fresh_fingerprint(trial.teacher),
        "the same weights whenever it is built",
        "another fingerprint",
        "Load weights, or draw random ones from a seed of their own.",
    )


@check("stages", needs=("determinism",))
def _stages(trial: Trial) -> None:
    with torch.inference_mode():
        embedding, stages = trial.teacher.forward_stages(trial.batch)
    scale = max(1e-6, float(trial.embedding.abs().max()))
    expect(
        embedding.shape == trial.embedding.shape
        and float((embedding - trial.embedding).abs().max()) < 1e-3 * scale,
        "forward_stages to give the same embedding as forward",
        "another one",
        "Let one call the other.",
    )
    wrong = [list(each.shape) for each in stages if each.dim() < 2 or len(each) != len(trial.batch)]
    expect(not wrong, "stages of [B, C, ...]", str(wrong[:1]), "Keep the batch first.")


@check("classes", needs=("embedding",))
def _classes(trial: Trial) -> None:
    classes = trial.teacher.classes
    if classes is None:
        raise Skip("it names no classes of its own")
    with torch.inference_mode():
        said = trial.teacher.class_probabilities(trial.batch[: len(trial.inputs)])
    expect(
        tuple(said.shape) == (len(trial.inputs), len(classes)),
        f"a probability of each of {len(classes)} classes",
        str(list(said.shape)),
        "Let class_probabilities follow classes.",
    )
    expect(
        bool(((said >= 0) & (said <= 1)).all()),
        "probabilities from 0 to 1",
        f"{float(said.min()):.3g} to {float(said.max()):.3g}",
        "End it with a softmax or a sigmoid.",
    )


@check("device")
def _device(trial: Trial) -> None:
    expect_movable(trial.teacher)


def _whole(trial: Trial) -> None:
    """Of a track that is shorter than any teacher hears, every window gives the same input."""
    video = trial.clips.brief
    windows = [draw(video, 1, frames=1), draw(video, 2, at=3, frames=1), evaluated(video)]
    first, *others = (trial.preprocess(window) for window in windows)
    expect(
        all(_same(first, other) for other in others),
        "views = 'track' to give one input for the whole video",
        "inputs that differ with the window",
        "Look at the whole track (window.audio), or declare no views.",
    )


def _single(trial: Trial) -> None:
    """The input is that of a window which holds nothing but one of the frames."""
    for window in (draw(trial.clips.one, seed=3), evaluated(trial.clips.one)):
        seen = trial.preprocess(window)
        alone = (trial.preprocess(single_frame(window, number)) for number in range(len(window.frames)))
        expect(
            any(_same(seen, each) for each in alone),
            "views = 'frame' to look at one of window.frames alone",
            "an input that none of the frames gives by itself",
            "Look at one frame and at nothing else (not at student_view), or declare no views.",
        )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _settings(preprocess: object) -> list[str]:
    if dataclasses.is_dataclass(preprocess):
        names = [each.name for each in dataclasses.fields(preprocess)]
    else:
        names = list(getattr(preprocess, "__dict__", ()))
    return [name for name in names if not name.startswith("_")]


def _shows(preprocess: object, name: str) -> bool:
    """Whether the repr changes with a setting."""
    changed = copy.copy(preprocess)
    object.__setattr__(changed, name, object())
    try:
        return repr(changed) != repr(preprocess)
    except Exception:  # it looks at the setting, at least
        return True


def _fresh_fingerprint(teacher: Teacher) -> str:
    for kept in ("fingerprint", "_weights_hash"):  # what is computed once is computed anew
        vars(teacher).pop(kept, None)
    return teacher.fingerprint


class _changed:
    """One number of a tensor is another one for a while."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.at = tensor, (0,) * tensor.dim()
        self.kept = tensor[self.at].clone()

    def __enter__(self) -> None:
        self.tensor[self.at] = 1 if not self.kept else 0

    def __exit__(self, *_: Any) -> None:
        self.tensor[self.at] = self.kept
