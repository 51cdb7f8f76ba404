"""Data set, teachers, student and methods of a recipe. All errors are reported at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from ccl_cli import registry
from ccl_cli.config.load import attempt, check_recipe, method_options, needs_labels, refuse_without_labels
from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.config.spec import Spec, parse_model
from ccl_cli.data.clips.samplers import FrameRange, centre_clip
from ccl_cli.data.manifest import Manifest, Video, Videos, check_unreadable
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.reader import open_video
from ccl_cli.data.video.shard_reader import ShardReader
from ccl_cli.data.video.storage import Packed
from ccl_cli.errors import CclError, DataError, RecipeError
from ccl_cli.methods import Method, Setting, TeacherInfo
from ccl_cli.students import Student, StudentFactory
from ccl_cli.teachers import Teacher
from ccl_cli.training.held_out import check_held_out
from ccl_cli.training.optim import check_optimizer
from ccl_cli.training.run.folder import locate_model
from ccl_cli.utils.sentences import bundled

_OPENED = 64  # largest number of videos opened to find one that is as long as a clip
_log = logging.getLogger("ccl")


@dataclass(frozen=True)
class Parts:
    """Data set and networks of a training run.

    Attributes:
        manifest: The whole data set.
        videos: Training videos that exist, with the labels that the run uses. Rows of a batch are rows of
            these.
        missing: Training videos that do not exist.
        teachers: Frozen teachers, by name.
        student: The student, on the CPU.
        methods: Methods, by name.
    """

    manifest: Manifest
    videos: Videos
    missing: Videos
    teachers: dict[str, Teacher]
    student: Student
    methods: dict[str, Method]

    @cached_property
    def labelled(self) -> int:
        """Number of training videos with a label."""
        return int(self.videos.labelled.sum())

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the student: those of the data set, or none if no training video has a label."""
        return self.manifest.classes if self.labelled else ()

    @property
    def uses_stages(self) -> bool:
        """Whether a method uses the teachers' inner stages, which are not cached."""
        return any(method.uses_stages for method in self.methods.values())


def build(recipe: Recipe) -> Parts:
    """Build all parts; MultipleErrors name everything that is wrong. The same seed gives the same weights."""
    check_recipe(recipe)
    check_optimizer(recipe.optim)
    errors: list[CclError] = []
    manifest = attempt(errors, lambda: training_data(recipe))
    listed = training_videos(recipe, manifest) if manifest else Videos.of([])
    specs = recipe.teachers if attempt(errors, lambda: _uses_teachers(recipe)) else ()
    teachers = attempt(errors, lambda: load_teachers(specs, manifest.classes if manifest else ()))
    if manifest is not None:
        sees_labels = bool(listed.labelled.any())
        attempt(errors, partial(check_held_out, recipe, manifest, sees_labels=sees_labels))
    if errors or manifest is None or teachers is None:
        raise bundled(errors)
    videos = listed.without(manifest.missing("train"))
    missing = listed.without(videos)
    check_unreadable(len(missing), manifest, "train", recipe.max_unreadable, missing, videos=len(listed))
    if not videos:
        raise DataError(f"None of the {len(listed)} training videos exists, such as '{listed[0].path}'.")
    _check_teachers(teachers, videos)
    warn_if_packed_smaller(videos, recipe.clip.short_side)
    check_span(videos, recipe.clip)
    torch.manual_seed(recipe.train.seed)
    classes = manifest.classes if videos.labelled.any() else ()
    student = make_student(recipe.student, len(classes))
    student.check_clip(recipe.clip.frames, recipe.clip.size)
    infos = tuple(TeacherInfo(name, teacher.modality, teacher.dim) for name, teacher in teachers.items())
    labels = torch.tensor(videos.column("label"), dtype=torch.int64)
    setting = Setting(student.feature_dim, len(classes), labels, infos, recipe.train.epochs)
    methods = {name: load_method(name, options, setting) for name, options in recipe.method.items()}
    return Parts(manifest, videos, missing, teachers, student, methods)


def training_data(recipe: Recipe) -> Manifest:
    """Data set of a recipe, with its hold-out as validation split."""
    manifest = load_data(recipe.data)
    return manifest.hold_out(recipe.holdout) if recipe.holdout else manifest


def training_videos(recipe: Recipe, manifest: Manifest) -> Videos:
    """Training split with the labels that a run uses; without unlabelled videos if a method needs labels."""
    if recipe.labels_per_class is not None:
        manifest = manifest.keep_labels(recipe.labels_per_class, recipe.labels_seed)
    videos = manifest.split("train")
    labelled = videos.where(videos.labelled)
    if not labelled:
        refuse_without_labels(recipe)
    if len(labelled) == len(videos) or not any(map(needs_labels, recipe.method)):
        return videos
    _log.info("Training on the %d of %d videos that have a label.", len(labelled), len(videos))
    return labelled


def load_teachers(specs: Sequence[str], classes: Sequence[str] = ()) -> dict[str, Teacher]:
    """Build teachers, in the form of ``--teacher``, by their names in results; a repeated name gets ``#2``.

    ``classes`` are those of the data set. Raises MultipleErrors for several teachers that cannot be built.
    """
    errors: list[CclError] = []
    loaded = [attempt(errors, partial(load_teacher, text, classes)) for text in specs]
    if errors:
        raise bundled(errors)
    named: dict[str, Teacher] = {}
    for text, teacher in zip(specs, loaded, strict=True):
        label = parse_model(text).label
        repeats = sum(name.split("#")[0] == label for name in named)
        named[f"{label}#{repeats + 1}" if repeats else label] = cast(Teacher, teacher)
    return named


def load_teacher(spec: str | Spec, classes: Sequence[str] = ()) -> Teacher:
    """Build one frozen teacher with its weights, e.g. ``image:resnet34``.

    Args:
        spec: Teacher with options.
        classes: Names of the data set's classes, for a teacher that uses them.

    Raises:
        PluginError: there is no such teacher, or it is broken.
        WeightsError: its weights are missing.
    """
    if isinstance(spec, str):
        spec = parse_model(spec)
    plugin = registry.find(registry.TEACHERS, spec.label)
    cls: type[Teacher] = registry.load(plugin)
    with registry.blaming(plugin):
        teacher = cls.from_spec(spec).freeze()
        teacher.use_classes(classes)
        return teacher


def make_student(text: str, num_classes: int, *, with_weights: bool = True) -> Student:
    """Build a student for K classes; 0: without a classifier.

    ``text`` has after ``@`` a weights file or run folder to start from, unless ``with_weights`` is off.
    """
    spec = parse_model(text)
    plugin = registry.find(registry.STUDENTS, spec.label)
    factory: StudentFactory = registry.load(plugin)
    weights = spec.weights if with_weights else None
    if weights and (folder := Path(weights).expanduser()).is_dir():
        weights = str(locate_model(folder)[1])
    model = {"model": spec.name} if spec.kind else {}
    with registry.blaming(plugin):
        try:
            student = factory(max(num_classes, 1), weights=weights, **model, **spec.options)
        except TypeError as error:
            raise RecipeError(f"Student '{spec}' does not take these options: {error}.") from error
    if not num_classes:
        student.drop_classifier()
    return student


def load_method(name: str, options: dict[str, object], setting: Setting) -> Method:
    """Build one method."""
    plugin = registry.find(registry.METHODS, name)
    cls: type[Method] = registry.load(plugin)
    with registry.blaming(plugin):
        return cls(method_options(cls, name, options), setting)


def warn_if_packed_smaller(videos: Videos, short_side: int) -> None:
    """Warn if packed frames are smaller than the recipe's ``clip.short_side``."""
    first = videos.packed[0].path if videos.packed else None
    side = ShardReader(first).scaled_to if isinstance(first, Packed) else None
    if side is not None and side < short_side:
        _log.warning(
            "The videos were packed at %d pixels, the recipe reads them at %d (clip.short_side): "
            "crops will be coarser than from the files.",
            side,
            short_side,
        )


def check_span(videos: Videos, clip: Clip) -> None:
    """Raise a RecipeError if all training videos are shorter than a clip with a stride or a frame rate.

    Opens at most 64 of them, evenly spread. If there are more, it only warns.
    """
    if clip.consecutive or clip.sampling == "segments":
        return
    opened = videos[:: -(-len(videos) // _OPENED)]
    if any(_spans(video, clip) for video in opened):
        return
    seconds = 0 if clip.fps is None else (clip.frames - 1) / clip.fps
    span = f"{clip.span} frames" if clip.fps is None else f"{seconds:g} s"
    sentence = f"A clip of {clip.frames} frames spans {span}, and none of %s training videos is as long."
    hint = "Lower clip.frames or clip.stride." if clip.fps is None else "Lower clip.frames or raise clip.fps."
    if len(opened) == len(videos):
        raise RecipeError(sentence % f"the {len(videos)}", hint)
    sentence %= f"{len(opened)} of the {len(videos)}"
    _log.warning("%s Frames of short videos repeat. %s", sentence, hint)


def _spans(video: Video, clip: Clip) -> bool:
    try:
        metadata = open_video(video.path).metadata
        frames = FrameRange(metadata, *metadata.frame_range(video.start, video.end))
    except DataError:
        return True  # the loader reports unreadable videos
    return len(centre_clip(frames, clip, np.random.default_rng(0))) == clip.frames


def check_coverage(teachers: Mapping[str, Teacher], ids: Sequence[str], what: str = "videos") -> None:
    """Raise a DataError if a teacher has no embedding of any of these videos."""
    for name, teacher in teachers.items():
        if not teacher.coverage(ids):
            raise DataError(
                f"{name} has no embedding for any of the {len(ids)} {what}.",
                f"Its names must be video ids such as '{ids[0]}'.",
            )


def _check_teachers(teachers: Mapping[str, Teacher], videos: Videos) -> None:
    """Check that teachers have embeddings of the training videos, and labels if they read them."""
    check_coverage(teachers, videos.ids, "training videos")
    unlabelled = int((~videos.labelled).sum())
    label_readers = [name for name, teacher in teachers.items() if teacher.sees_label]
    if unlabelled and label_readers:
        raise RecipeError(
            f"{label_readers[0]} reads labels, and {unlabelled} training videos have none.",
            "Remove it, or choose another data set.",
        )


def parameter_count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _uses_teachers(recipe: Recipe) -> bool:
    methods = [registry.load(registry.find(registry.METHODS, name)) for name in recipe.method]
    needed = any(method.uses_teachers for method in methods)
    if recipe.teachers and not needed:
        _log.info("%s needs no teacher; the given ones are ignored.", recipe.method_label)
    if needed and not recipe.teachers:
        raise RecipeError(
            f"{recipe.method_label} needs at least one teacher.",
            "Name one with --teacher, for example --teacher image:resnet34, or train with --method baseline.",
        )
    return needed
