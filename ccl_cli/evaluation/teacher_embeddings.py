"""Embeddings of frozen teachers for whole videos, from the centre clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.data.clips.dataset import UNREADABLE, LoadedInputs, TeacherClips, clip_loader, split_rows
from ccl_cli.data.manifest import Video
from ccl_cli.teachers import Teacher, embed
from ccl_cli.training.build import check_coverage
from ccl_cli.training.compute.device import set_up
from ccl_cli.utils.distributed import gather_objects, rank, total, world_size
from ccl_cli.utils.progress import Reporter


@dataclass(frozen=True)
class TeacherEmbeddings:
    """Embeddings of one teacher.

    Attributes:
        value: [V, D] float32; absent rows are zero.
        present: [V] bool.
        states: State of each video's modality by row: "present", "silent", "unreadable", ...
        unreadable: Reasons by row; a non-finite embedding counts as unreadable.
    """

    value: Tensor
    present: Tensor
    states: dict[int, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)


def embed_videos(
    teachers: Mapping[str, Teacher],
    videos: Sequence[Video],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
) -> dict[str, TeacherEmbeddings]:
    """Embed the centre clip of each video with each teacher, shared among the processes.

    Files are opened only for teachers that use frames or audio. ``batch_size`` (videos per forward pass) and
    ``workers`` (decoding processes) default to those of recipes.

    Returns:
        Embeddings by teacher, identical on all processes.

    Raises:
        DataError: a teacher cannot have embeddings of these videos.
        PluginError: the preprocessing of a teacher fails.
    """
    check_coverage(teachers, [video.id for video in videos])
    accelerator, defaults, own = set_up("fp32"), Recipe(), {}
    for name, teacher in teachers.items():
        teacher.to(accelerator.device)
        present = torch.zeros(len(videos), dtype=torch.bool)
        own[name] = TeacherEmbeddings(torch.zeros(len(videos), teacher.dim), present)
    rows = range(rank(), len(videos), world_size())
    loader = clip_loader(
        TeacherClips(videos, Clip(), {name: teacher.preprocess for name, teacher in teachers.items()}),
        split_rows(rows, batch_size or defaults.eval.batch_size),
        workers=defaults.train.workers if workers is None else workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    with Reporter("embed", len(rows), unit="video") as reporter, accelerator.autocast():
        for batch in loader:
            for name, teacher in teachers.items():
                _add(own[name], name, teacher, batch, accelerator.device)
            reporter.advance(len(batch.rows))
    return {name: _over_processes(each, accelerator.device) for name, each in own.items()}


def classify_videos(teacher: Teacher, videos: Sequence[Video]) -> Tensor:
    """Classify the centre clip of videos with a teacher's own classifier: [V, len(classes)] in [0, 1]."""
    device = set_up("fp32").device
    teacher.to(device)
    dataset = TeacherClips(videos, Clip(), {"": teacher.preprocess})
    loader = clip_loader(dataset, split_rows(range(len(videos)), 8), workers=0, pin_memory=False)
    with torch.inference_mode():
        scores = [teacher.class_probabilities(batch.inputs[""].value.to(device)) for batch in loader]
    return torch.cat(scores).float().cpu()


def _add(
    into: TeacherEmbeddings, name: str, teacher: Teacher, batch: LoadedInputs, device: torch.device
) -> None:
    value, present = (each.to(device, non_blocking=True) for each in batch.inputs[name])
    embeddings = embed(teacher, value, present).value.cpu()
    finite = embeddings.isfinite().all(dim=1)
    into.value[batch.rows] = torch.where(finite[:, None], embeddings, 0.0)
    into.present[batch.rows] = batch.inputs[name].present & finite
    into.states.update({row: states[name] for row, states in batch.states.items()})
    reasons = {row: reasons[name] for row, reasons in batch.unreadable.items() if name in reasons}
    infinite = batch.rows[~finite].tolist()
    into.states.update(dict.fromkeys(infinite, UNREADABLE))
    into.unreadable.update(reasons | dict.fromkeys(infinite, f"its embedding from {name} is not finite."))


def _over_processes(own: TeacherEmbeddings, device: torch.device) -> TeacherEmbeddings:
    # Sum on the device, because NCCL cannot send CPU tensors.
    value, present = (total(each.to(device)).cpu() for each in (own.value, own.present.float()))
    whole = TeacherEmbeddings(value, present > 0)
    for states, unreadable in gather_objects((own.states, own.unreadable)):
        whole.states.update(states)
        whole.unreadable.update(unreadable)
    return whole
