"""Checks of teachers on real clips."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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

_LARGEST = 1_000_000  # bytes of the pickled preprocessing, which is sent to every worker
_SECONDS = 300.0  # limit for another process to start and preprocess one window


@dataclass
class Trial:
    """A frozen teacher, the videos that it should embed, and ``rebuild``, None for an object without name."""

    name: str
    teacher: Teacher
    videos: Sequence[Video]
    clips: Clips
    rebuild: Callable[[], Teacher] | None = None

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of the teacher."""
        return self.teacher.preprocess

    @cached_property
    def inputs(self) -> list[Tensor]:
        """Inputs of all videos that have one."""
        values = (self.preprocess(evaluated(video)) for video in self.videos)
        return [value for value in values if value is not None]

    @cached_property
    def batch(self) -> Tensor:
        """Batch [B, *shape] of all inputs, and a last zero row for a video without the modality."""
        return torch.stack([*self.inputs, torch.zeros_like(self.inputs[0])])

    @cached_property
    def embedding(self) -> Tensor:
        """Output [B, dim] of the teacher for :attr:`batch`."""
        return self.embed(self.batch)

    def embed(self, x: Tensor) -> Tensor:
        """Embed a batch as the training loop does."""
        with torch.inference_mode():
            return self.teacher(x)  # type: ignore[no-any-return]


check = Checks[Trial]()


def verdicts(teacher: Teacher | str, videos: Sequence[Video] = ()) -> Iterator[Verdict]:
    """Check a teacher object, or the name as after ``--teacher``, on videos or small generated ones."""
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
    expect(isinstance(dim, int) and dim > 0, f"dim is {dim!r}. Set the embedding dimension in __init__.")
    shape, dtype = tuple(teacher.preprocess.shape), teacher.preprocess.dtype
    whole = all(isinstance(side, int) and side > 0 for side in shape)
    expect(
        whole, f"preprocess.shape is {shape}. Set it to the shape of one input, without the batch dimension."
    )
    expect(isinstance(dtype, torch.dtype), f"preprocess.dtype is {dtype!r} instead of a torch.dtype.")


@check("attributes")
def _input(trial: Trial) -> None:
    expect(
        bool(trial.inputs),
        f"no input for any of {len(trial.videos)} videos. "
        "Return None only if the modality is missing. Use --data for teachers of certain videos only.",
    )
    declared = tuple(trial.preprocess.shape), trial.preprocess.dtype
    for value in trial.inputs:
        actual = tuple(value.shape), value.dtype
        expect(actual == declared, f"an input of {actual}, but preprocess declares {declared}. Convert it.")
        expect_finite(value, of="in an input")


@check("input")
def _draws(trial: Trial) -> None:
    video = trial.videos[0]
    one, again = (trial.preprocess(draw(video, seed=4)) for _ in range(2))
    expect(
        _same(one, again),
        "a different input for the same draw. "
        "Use only window.rng or window.batch_rng for random numbers, so that runs can be resumed exactly.",
    )
    one, other = (trial.preprocess(evaluated(video, seed)) for seed in (1, 2))
    expect(
        _same(one, other),
        "randomness where window.training is False. Use the centre instead of a random part.",
    )


@check("draws")
def _pickling(trial: Trial) -> None:
    packed, video = pickle.dumps(trial.preprocess), trial.videos[0]
    expect(
        len(packed) <= _LARGEST,
        f"{len(packed) / 1e6:.1f} MB of preprocessing are sent to every worker. "
        "Store weights and tables in the network, or load them on first use.",
    )
    [(_, value)] = run_each([(packed, video)], preprocessed, workers=1, timeout=_SECONDS)
    expect(
        not isinstance(value, Failure) and _same(trial.preprocess(evaluated(video)), value),
        f"in a worker process: {value.reason if isinstance(value, Failure) else 'a different input'}. "
        "It must depend on its own settings only, not on global state.",
    )


@check("pickling")
def _repr(trial: Trial) -> None:
    text = repr(trial.preprocess)
    again = repr(pickle.loads(pickle.dumps(trial.preprocess)))
    settings = [name for name in getattr(trial.preprocess, "__dict__", ()) if not name.startswith("_")]
    hidden = [name for name in settings if not _shows(trial.preprocess, name)]
    expect(
        text == again and " at 0x" not in text and not hidden,
        f"the repr '{text}', which must contain every setting ({', '.join(hidden) or 'all'}) and nothing "
        "else. Use a dataclass; the repr is part of the key of caches.",
    )


@check("draws")
def _views(trial: Trial) -> None:
    declared = getattr(trial.preprocess, "views", None)
    if declared is None:
        raise Skip("it declares none, so its embeddings are never cached")
    known = " or ".join(f"'{name}'" for name in get_args(Views))
    expect(
        declared in get_args(Views), f"views is {declared!r} instead of {known}. Correct it or leave it out."
    )
    {"frame": _frame_alone, "clip": _clip_alone, "track": _whole_track}[declared](trial)


@check("input")
def _missing_modality(trial: Trial) -> None:
    uses_audio = False
    for video in (trial.clips.mute, trial.clips.silent):
        window, other = draw(video), draw(trial.clips.other, seed=1)
        value = trial.preprocess(window)
        uses_audio = uses_audio or "audio" in window.states
        if value is None or "audio" not in window.states:
            continue
        window = draw(video)  # the same or no audio, with other frames
        window.frames, window.student_view = other.frames, other.student_view
        expect(
            not _same(value, trial.preprocess(window)),
            "an input for a video without audio. "
            "Return None if window.audio returns None, to mark the row as absent.",
        )
    if not uses_audio:
        raise Skip("it does not use audio, and every window has frames")


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
    expect(differ, "the same embedding for different videos. Check that forward uses its input.")


@check("embedding")
def _determinism(trial: Trial) -> None:
    expect(
        torch.equal(trial.embedding, trial.embed(trial.batch)),
        "a different embedding for the same input. "
        "Remove randomness from forward, such as noise or dropout in evaluation mode.",
    )


@check("determinism")
def _batch(trial: Trial) -> None:
    alone = torch.cat([trial.embed(value[None]) for value in trial.inputs])
    difference = _difference(alone, trial.embedding[: len(trial.inputs)])
    expect(
        difference < 1e-3,
        f"an embedding that depends on the other rows of its batch, by {difference:.1%}. "
        "Use running statistics (batch norm in evaluation mode) instead of batch statistics.",
    )


@check()
def _fingerprint(trial: Trial) -> None:
    before, tensors = _fresh_fingerprint(trial.teacher), trial.teacher.state_dict()
    again = trial.rebuild() if trial.rebuild else trial.teacher
    expect(
        _fresh_fingerprint(again) == before,
        "a different fingerprint when it is built again. Load weights, or initialise them with a fixed seed.",
    )
    names = list(tensors)
    for name in {names[0], names[len(names) // 2], names[-1]} if names else ():
        kept = tensors[name].clone()
        tensors[name].copy_(kept == 0)
        after = _fresh_fingerprint(trial.teacher)
        tensors[name].copy_(kept)
        expect(
            after != before,
            f"the same fingerprint when '{name}' changes. "
            "Do not override fingerprint, or hash all weights; otherwise stale caches are used.",
        )


@check("determinism")
def _stages(trial: Trial) -> None:
    with torch.inference_mode():
        embedding, stages = trial.teacher.forward_stages(trial.batch)
    same = embedding.shape == trial.embedding.shape and _difference(embedding, trial.embedding) < 1e-3
    expect(same, "different embeddings from forward_stages and forward. Let one call the other.")
    wrong = [list(each.shape) for each in stages if each.dim() < 2 or len(each) != len(trial.batch)]
    expect(not wrong, f"a stage of {wrong[:1]} instead of [B, C, ...]. Keep the batch first.")


@check("embedding")
def _classes(trial: Trial) -> None:
    classes = trial.teacher.classes
    if classes is None:
        raise Skip("it has no classes of its own")
    with torch.inference_mode():
        probabilities = trial.teacher.class_probabilities(trial.batch[: len(trial.inputs)])
    shape = [len(trial.inputs), len(classes)]
    expect(
        list(probabilities.shape) == shape,
        f"probabilities of {list(probabilities.shape)} instead of {shape}. Return one for each class.",
    )
    lowest, highest = float(probabilities.min()), float(probabilities.max())
    expect(
        lowest >= 0 and highest <= 1,
        f"probabilities from {lowest:.3g} to {highest:.3g}. Apply a softmax or a sigmoid.",
    )


@check()
def _device(trial: Trial) -> None:
    expect_movable(trial.teacher)


def _whole_track(trial: Trial) -> None:
    """Check that every window of a very short track gives the same input."""
    video = trial.clips.brief
    windows = [draw(video, 1, frames=1), draw(video, 2, at=3, frames=1), evaluated(video)]
    first, *others = (trial.preprocess(window) for window in windows)
    expect(
        all(_same(first, other) for other in others),
        "views = 'track', but the input depends on the window. "
        "Use the whole track (window.audio), or declare no views.",
    )


def _frame_alone(trial: Trial) -> None:
    """Check that a single frame of the window gives the same input."""
    for window in (draw(trial.clips.one, seed=3), evaluated(trial.clips.one)):
        value = trial.preprocess(window)
        alone = (trial.preprocess(cached_view(window, number, 1)) for number in range(len(window.frames)))
        expect(
            any(_same(value, each) for each in alone),
            "views = 'frame', but no single frame of window.frames gives this input. "
            "Use one frame only (not student_view), or declare no views.",
        )


def _clip_alone(trial: Trial) -> None:
    """Check that the frames of the window determine the input, independent of the draw."""
    windows = [evaluated(trial.clips.one), *(draw(trial.clips.one, seed) for seed in range(3))]
    for window in windows:
        view = cached_view(window, 0, len(window.frames))
        expect(
            _same(trial.preprocess(window), trial.preprocess(view)),
            "views = 'clip', but window.frames alone do not give this input. "
            "Use the frames only (not student_view or rng), or declare no views.",
        )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _difference(one: Tensor, other: Tensor) -> float:
    """Maximum difference, relative to the largest entry of the second tensor."""
    return float((one - other).abs().max()) / max(1e-6, float(other.abs().max()))


def _shows(preprocess: object, name: str) -> bool:
    """Whether the repr changes with a setting."""
    changed = copy.copy(preprocess)
    object.__setattr__(changed, name, object())
    try:
        return repr(changed) != repr(preprocess)
    except Exception:  # the repr uses the setting
        return True


def _fresh_fingerprint(teacher: Teacher) -> str:
    for cached in ("fingerprint", "_weights_hash"):  # clear cached properties
        vars(teacher).pop(cached, None)
    return teacher.fingerprint
