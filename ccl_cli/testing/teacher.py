"""What ccl relies on in a teacher, each part tried on real clips."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import get_args

import torch
from torch import Tensor

from ccl_cli.config.spec import parse_model
from ccl_cli.data.checks.pool import Failure, run_each
from ccl_cli.data.manifest import Video
from ccl_cli.teachers import Preprocess, Teacher, Views
from ccl_cli.testing.clips import Clips, cached_view, draw, evaluated, made_clips, preprocessed
from ccl_cli.testing.verdicts import Checks, Skip, Verdict, expect, expect_finite, expect_movable
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
        values = (self.preprocess(evaluated(video)) for video in self.videos)
        return [value for value in values if value is not None]

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


@check()
def _attributes(trial: Trial) -> None:
    teacher, typed = trial.teacher, trial.name.partition(":")[0]
    modality, dim = (getattr(teacher, name, None) for name in ("modality", "dim"))
    expect(
        modality == typed if typed else bool(modality),
        f"modality is {modality!r} instead of {typed or 'audio'!r}, as in its name. Set it on the class.",
    )
    expect(isinstance(dim, int) and dim > 0, f"dim is {dim!r}. Set the width of its embeddings in __init__.")
    shape, dtype = tuple(teacher.preprocess.shape), teacher.preprocess.dtype
    whole = all(isinstance(side, int) and side > 0 for side in shape)
    expect(whole, f"preprocess.shape is {shape}. It is the shape of one input, without the batch.")
    expect(isinstance(dtype, torch.dtype), f"preprocess.dtype is {dtype!r} instead of a torch.dtype.")


@check("attributes")
def _input(trial: Trial) -> None:
    expect(
        bool(trial.inputs),
        f"no input for any of {len(trial.videos)} videos. "
        "If it only knows certain videos, name them with --data; else return None only where it is missing.",
    )
    declared = tuple(trial.preprocess.shape), trial.preprocess.dtype
    for value in trial.inputs:
        actual = tuple(value.shape), value.dtype
        expect(actual == declared, f"an input of {actual}, but preprocess declares {declared}. Convert it.")
        expect_finite(value, of="in an input")


@check("input")
def _draws(trial: Trial) -> None:
    one, again = (trial.preprocess(draw(trial.videos[0], seed=4)) for _ in range(2))
    expect(
        _same(one, again),
        "another input from the same draw. "
        "Take random numbers from window.rng or window.batch_rng only: then a run can be resumed exactly.",
    )


@check("draws")
def _evaluation(trial: Trial) -> None:
    one, other = (trial.preprocess(evaluated(trial.videos[0], seed)) for seed in (1, 2))
    expect(
        _same(one, other),
        "something random where window.training is False. Take the middle instead of a random part.",
    )


@check("attributes")
def _pickling(trial: Trial) -> None:
    packed = pickle.dumps(trial.preprocess)
    expect(
        len(packed) <= _LARGEST,
        f"{len(packed) / 1e6:.1f} MB of preprocessing are sent to every worker. "
        "Keep weights and tables in the network, or load them where they are needed.",
    )
    pickle.loads(packed)


@check("pickling")
def _repr(trial: Trial) -> None:
    text = repr(trial.preprocess)
    again = repr(pickle.loads(pickle.dumps(trial.preprocess)))
    hidden = [name for name in _settings(trial.preprocess) if not _shows(trial.preprocess, name)]
    expect(
        text == again and " at 0x" not in text and not hidden,
        f"'{text}' as repr, which must name every setting ({', '.join(hidden) or 'all'}) and nothing else. "
        "A dataclass has one; caches are found by it.",
    )


@check("evaluation", "pickling")
def _another_process(trial: Trial) -> None:
    video = trial.videos[0]
    [(_, value)] = run_each(
        [(pickle.dumps(trial.preprocess), video)], preprocessed, workers=1, timeout=_SECONDS
    )
    expect(
        not isinstance(value, Failure) and _same(trial.preprocess(evaluated(video)), value),
        f"in a loader's process {value.reason if isinstance(value, Failure) else 'another input'}. "
        "Let it depend on its own settings only, not on what this process has set up.",
    )


@check("evaluation")
def _views(trial: Trial) -> None:
    declared = getattr(trial.preprocess, "views", None)
    if declared is None:
        raise Skip("it declares none: its embeddings are never cached")
    known = " or ".join(f"'{name}'" for name in get_args(Views))
    expect(
        declared in get_args(Views), f"views is {declared!r} instead of {known}. Correct it or leave it out."
    )
    {"frame": _frame_alone, "clip": _clip_alone, "track": _whole_track}[declared](trial)


@check("input")
def _missing_modality(trial: Trial) -> None:
    listens = False
    for video in (trial.clips.mute, trial.clips.silent):
        window, other = draw(video), draw(trial.clips.other, seed=1)
        value = trial.preprocess(window)
        listens = listens or "audio" in window.states
        if value is None or "audio" not in window.states:
            continue
        window = draw(video)  # the same sound, or none, under another picture
        window.frames, window.student_view = other.frames, other.student_view
        expect(
            not _same(value, trial.preprocess(window)),
            "an input for a video without sound. "
            "Return None where window.audio returns None: the row is then marked as absent.",
        )
    if not listens:
        raise Skip("it does not listen, and a window always has a picture")


@check("input")
def _embedding(trial: Trial) -> None:
    embedding, shape = trial.embedding, (len(trial.batch), trial.teacher.dim)
    expect(
        tuple(embedding.shape) == shape,
        f"embeddings of {list(embedding.shape)} instead of {list(shape)}. Correct dim or forward.",
    )
    expect(embedding.is_floating_point(), f"embeddings of {embedding.dtype}. End forward with .float().")
    expect_finite(embedding[: len(trial.inputs)], of="in an embedding")


@check("embedding")
def _tells_apart(trial: Trial) -> None:
    if len(trial.inputs) < 2:
        raise Skip("it has an input for one video only")
    first, second = trial.embedding[:2]
    differ = not torch.equal(first, second)
    expect(differ, "one embedding for different videos. See whether forward looks at its input.")


@check("embedding")
def _determinism(trial: Trial) -> None:
    expect(
        torch.equal(trial.embedding, trial.embed(trial.batch)),
        "another embedding of the same input. "
        "Nothing may be random in forward: no noise, no dropout that evaluation mode leaves on.",
    )


@check("determinism")
def _batch(trial: Trial) -> None:
    alone = torch.cat([trial.embed(value[None]) for value in trial.inputs])
    difference = _difference(alone, trial.embedding[: len(trial.inputs)])
    expect(
        difference < 1e-3,
        f"an embedding that depends on the others in its batch, by {difference:.1%}. "
        "Use statistics that are stored (batch norm in evaluation mode), not the batch's.",
    )


@check("embedding")
def _evaluation_mode(trial: Trial) -> None:
    before = [buffer.clone() for buffer in trial.teacher.buffers()]
    trial.teacher.train()
    trial.embed(trial.batch)
    training = [name or "itself" for name, module in trial.teacher.named_modules() if module.training]
    trial.teacher.eval()
    for buffer, value in zip(trial.teacher.buffers(), before, strict=True):
        buffer.copy_(value)  # in training mode, batch norm has counted ours in
    expect(
        not training,
        f"training mode after train() and forward: {', '.join(training[:3])}. "
        "Leave train() as ccl_cli.teachers.Teacher has it, and call it nowhere.",
    )


@check()
def _no_gradient(trial: Trial) -> None:
    learning = [name for name, each in trial.teacher.named_parameters() if each.requires_grad]
    expect(
        not learning,
        f"parameters that want a gradient: {', '.join(learning[:3])}. "
        "Leave freeze() as it is, and end from_spec with `return teacher.freeze()`.",
    )


@check()
def _fingerprint(trial: Trial) -> None:
    tensors = trial.teacher.state_dict()
    if not tensors:
        raise Skip("it has no weights")
    before = _fresh_fingerprint(trial.teacher)
    expect(before == _fresh_fingerprint(trial.teacher), "a fingerprint that changes. Hash what is fixed.")
    names = list(tensors)
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        with _changed(tensors[name]):
            after = _fresh_fingerprint(trial.teacher)
        expect(
            after != before,
            f"the same fingerprint when '{name}' changes. "
            "Leave fingerprint as it is, or hash all weights: a stale cache would be taken for a fresh one.",
        )


@check()
def _built_twice(trial: Trial) -> None:
    if trial.rebuild is None:
        raise Skip("needs a name instead of an object")
    expect(
        trial.rebuild().fingerprint == _fresh_fingerprint(trial.teacher),
        "another fingerprint when it is built again. "
        "Load weights, or draw random ones from a seed of their own.",
    )


@check("determinism")
def _stages(trial: Trial) -> None:
    with torch.inference_mode():
        embedding, stages = trial.teacher.forward_stages(trial.batch)
    same = embedding.shape == trial.embedding.shape and _difference(embedding, trial.embedding) < 1e-3
    expect(same, "forward_stages gives another embedding than forward. Let one call the other.")
    wrong = [list(each.shape) for each in stages if each.dim() < 2 or len(each) != len(trial.batch)]
    expect(not wrong, f"a stage of {wrong[:1]} instead of [B, C, ...]. Keep the batch first.")


@check("embedding")
def _classes(trial: Trial) -> None:
    classes = trial.teacher.classes
    if classes is None:
        raise Skip("it names no classes of its own")
    with torch.inference_mode():
        probabilities = trial.teacher.class_probabilities(trial.batch[: len(trial.inputs)])
    shape = [len(trial.inputs), len(classes)]
    expect(
        list(probabilities.shape) == shape,
        f"probabilities of {list(probabilities.shape)} instead of {shape}: one for each of its classes.",
    )
    lowest, highest = float(probabilities.min()), float(probabilities.max())
    expect(
        lowest >= 0 and highest <= 1,
        f"probabilities from {lowest:.3g} to {highest:.3g}. End it with a softmax or a sigmoid.",
    )


@check()
def _device(trial: Trial) -> None:
    expect_movable(trial.teacher)


def _whole_track(trial: Trial) -> None:
    """Of a track that is shorter than any teacher hears, every window gives the same input."""
    video = trial.clips.brief
    windows = [draw(video, 1, frames=1), draw(video, 2, at=3, frames=1), evaluated(video)]
    first, *others = (trial.preprocess(window) for window in windows)
    expect(
        all(_same(first, other) for other in others),
        "views = 'track', but the input differs with the window. "
        "Look at the whole track (window.audio), or declare no views.",
    )


def _frame_alone(trial: Trial) -> None:
    """The input is that of a window which holds nothing but one of the frames."""
    for window in (draw(trial.clips.one, seed=3), evaluated(trial.clips.one)):
        value = trial.preprocess(window)
        alone = (trial.preprocess(cached_view(window, number, 1)) for number in range(len(window.frames)))
        expect(
            any(_same(value, each) for each in alone),
            "views = 'frame', but no frame of window.frames gives this input by itself. "
            "Look at one frame and at nothing else (not at student_view), or declare no views.",
        )


def _clip_alone(trial: Trial) -> None:
    """The input is that of a window which holds the same frames, whatever the draw."""
    windows = [evaluated(trial.clips.one), *(draw(trial.clips.one, seed) for seed in range(3))]
    for window in windows:
        view = cached_view(window, 0, len(window.frames))
        expect(
            _same(trial.preprocess(window), trial.preprocess(view)),
            "views = 'clip', but window.frames alone do not give this input. "
            "Look at them and at nothing else (not at student_view or rng), or declare no views.",
        )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest, relative to the largest entry of the second."""
    return float((one - other).abs().max()) / max(1e-6, float(other.abs().max()))


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
    for cached in ("fingerprint", "_weights_hash"):  # what is computed once is computed anew
        vars(teacher).pop(cached, None)
    return teacher.fingerprint


@contextmanager
def _changed(tensor: Tensor) -> Iterator[None]:
    """One number of a tensor is another one for a while."""
    place = (0,) * tensor.dim()
    before = tensor[place].clone()
    tensor[place] = 1 if not before else 0
    yield
    tensor[place] = before
