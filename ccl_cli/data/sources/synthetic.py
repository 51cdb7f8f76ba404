"""A small generated audio-visual data set: digits that move, and sounds that depend on their motion.

An action is a group of handwritten digits and a group of motions. Each of its clips shows one of the digits
in one of the motions, which the label does not distinguish. Neither the digit nor the motion alone
identifies an action. As in real videos, clips of one label look different, and a teacher trained on digits
or sounds knows more about a clip than its label, but no teacher alone knows the class. A mirrored motion is
another motion, so train with ``clip.flip: 0``.

Each motion has its own sound event. The probability that a clip plays the event of its motion depends on
``correspondence`` c and on the third of the actions to which it belongs: c + min(c, 1 - c) in the first, c in
the second and c - min(c, 1 - c) in the last. At 0.5 the thirds are highly, weakly and not correlated with
their sound, as in Figure 6 of Chen et al. 2021. Otherwise it plays one of all 12 events with equal
probability. The pictures of a clip do not depend on the correspondence.

For teachers there are two more label spaces: ``labels=objects`` (digits, in pictures without a common
motion) and ``labels=sounds`` (sound events). They use other images of digits than the actions, and so does
each split.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from ccl_cli.data.manifest import SPLITS, Manifest
from ccl_cli.data.sources import world
from ccl_cli.data.sources.about import described
from ccl_cli.data.sources.generated import generate
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import RecipeError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
# Default numbers of training, validation and test clips of each class.
_USUAL = {"actions": (20, 20, 50), "objects": (30, 0, 10), "sounds": (15, 0, 10)}
_ORDER = list(world.MOTIONS)  # each motion's event is at the same place in world.EVENTS


@described(
    "A small audio-visual world that ccl draws itself; the gap between sound and picture is a dial.",
    "synthetic?correspondence=0.5",
)
def load(
    location: str,
    *,
    labels: world.Labels = "actions",
    object_groups: Annotated[int, Field(ge=1, le=10)] = 2,
    motion_groups: Annotated[int, Field(ge=1, le=12)] = 6,
    clips: Count | None = None,
    val_clips: Annotated[int, Field(ge=0)] | None = None,
    test_clips: Count | None = None,
    correspondence: Share = 1.0,
    silent: Share = 0.05,
    trackless: Share = 0.05,
    noise: Annotated[float, Field(ge=0, le=4)] = 1.0,
    distractors: Annotated[int, Field(ge=0, le=20)] = 2,
    jitter: Annotated[float, Field(ge=0, le=0.2)] = 0.03,
    size: Annotated[int, Field(ge=24, le=512, multiple_of=2)] = 26,
    frames: Annotated[int, Field(ge=2, le=1000)] = 8,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Manifest:
    """Write the missing clips, and list all clips.

    Args:
        location: Folder of the clips; "" for one in the cache, named after the options.
        labels: Kind of classes: actions, or for teachers objects (without sound) or sounds.
        object_groups: Groups into which the 10 digits are divided.
        motion_groups: Groups into which the 12 motions are divided; an action is a group of each.
        clips: Training clips per class; by default 20 for actions, 30 for objects, 15 for sounds.
        val_clips: Validation clips per class; by default 20 for actions, otherwise none.
        test_clips: Test clips per class; by default 50 for actions, otherwise 10.
        correspondence: Mean probability that an action's clip plays the sound event of its motion.
        silent: Share of the actions' clips with a silent track.
        trackless: Share of the actions' clips without a track.
        noise: Strength of distractors, clutter, shaking and background noise.
        distractors: Number of fainter other digits in a clip; more make objects harder to recognise.
        jitter: Standard deviation of a digit's place around its path, as a share of the frame; more makes
            motions harder to recognise.
        size: Height and width, pixels.
        frames: Length of a clip; 8 frames are a second.
        seed: Seed of all random numbers.

    Raises:
        RecipeError: options contradict each other.
        DataError: the folder contains other files.
    """
    options = {name: value for name, value in locals().items() if name != "location"}
    if labels == "actions" and object_groups * motion_groups < 2:
        raise RecipeError("One group of objects and one of motions make a single action.", "Raise either.")
    if silent + trackless > 1:
        raise RecipeError(f"silent={silent:g} and trackless={trackless:g} are more than all clips.")
    usual = dict(zip(("clips", "val_clips", "test_clips"), _USUAL[labels], strict=True))
    settings = world.World(
        **options | {name: usual.get(name) for name, value in options.items() if value is None}
    )
    # A fitted teacher is stored under the name of its data set, so each label space needs a name.
    name = "synthetic" if labels == "actions" else f"synthetic-{labels}"
    writers = {path: partial(_write, settings, clip) for path, clip in settings.clips_by_path()}
    return generate(location, name, {"format": "ccl-synthetic-5", **asdict(settings)}, writers)


# -- writing


def _write(settings: world.World, name: world.ClipName, path: Path) -> None:
    for_teachers = settings.labels != "actions"
    part = f"teacher-{name.split}".replace("-val", "-train") if for_teachers else name.split
    picture_rng, sound_rng = (_generator(settings, name, stream) for stream in (0, 1))
    # An object's clip is a slide show of different pictures in different places.
    slides = settings.labels == "objects"
    whole = np.linspace(-0.5, 0.5, settings.frames)
    moments = list(picture_rng.uniform(-0.5, 0.5, (settings.frames, 1))) if slides else [whole]
    parts = [
        world.render(settings, *_subject(settings, name, picture_rng), world.digits(part), times, picture_rng)
        for times in moments
    ]
    write_clip(path, np.concatenate(parts), world.FPS, _sound(settings, name, sound_rng), world.RATE)


def _generator(settings: world.World, name: world.ClipName, stream: int) -> np.random.Generator:
    """Random numbers of one clip's picture or sound, independent of other clips."""
    digit, motion = settings.subject(name) if settings.labels == "actions" else (name.label, "right")
    labels, split = list(_USUAL).index(settings.labels), SPLITS.index(name.split)
    return np.random.default_rng(
        [settings.seed, stream, labels, split, digit, _ORDER.index(motion), name.number]
    )


def _subject(settings: world.World, name: world.ClipName, rng: np.random.Generator) -> tuple[int, str]:
    """Digit and motion of a clip."""
    if settings.labels == "actions":
        return settings.subject(name)
    digit, motion = int(rng.integers(10)), _ORDER[rng.integers(len(_ORDER))]
    return (name.label if settings.labels == "objects" else digit), motion


def _sound(settings: world.World, name: world.ClipName, rng: np.random.Generator) -> world.Floats | None:
    """Samples of the sound track, or None without a track."""
    if settings.labels == "objects":
        return None
    events = list(world.EVENTS)
    if settings.labels == "sounds":
        return world.play(settings, events[name.label], rng)
    # Draw all numbers first, so that another correspondence changes only the choice of the event.
    state, own, other = rng.random(), rng.random(), int(rng.integers(len(events)))
    if state < settings.trackless:
        return None
    related = own < settings.own_event_probability(name.label)
    event = events[_ORDER.index(settings.subject(name)[1]) if related else other]
    silent = state < settings.trackless + settings.silent
    return world.play(settings, None if silent else event, rng)
