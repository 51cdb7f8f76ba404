"""Runs with a model, videos and metrics, as pages need them; and what a reader's browser would see."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.teachers.fitted import Fitted, save_fitted
from ccl_cli.training.build import load_teachers, make_student
from ccl_cli.training.run.artefact import save_model
from ccl_cli.training.run.folder import MANIFEST, METRICS, MODEL, SUMMARY, read_json
from ccl_plugins.small import SmallImage
from tests.report.folders import write_cell

DATA = "clips"
CLIP = {"frames": 4, "size": 16, "short_side": 16}


def clips_manifest(root: Path, classes: Sequence[str]) -> Manifest:
    """The two classes of the fixture `clips_folder`, under names of one's own."""
    videos = [
        Video(f"{split}/{name}/{path.stem}", path, label, split)
        for split in ("train", "test")
        for label, name in enumerate(("right", "down"))
        for path in sorted((root / "set" / split / name).glob("*.mp4"))
    ]
    return Manifest(DATA, tuple(classes), tuple(videos))


def write_teachers(root: Path, clips: Path, classes: Sequence[str]) -> list[str]:
    """A table of embeddings, which has no classes of its own, and an image network, untrained, that has some."""
    spec = parse_model("image:small")
    torch.manual_seed(1)
    teacher = SmallImage.to_fit(spec, classes)
    made = {"options": {}, "preprocess": repr(teacher.preprocess), "data": "made", "manifest": "0" * 16}
    fitted = Fitted(teacher=spec.label, classes=tuple(classes), dim=teacher.dim, **made)
    save_fitted(root / "image.safetensors", fitted, teacher.own_weights())
    return [f"audio:precomputed@{clips / 'audio.npz'}", f"image:small@{root / 'image.safetensors'}"]


def write_study(
    root: Path,
    clips: Path,
    classes: Sequence[str] = ("right", "down"),
    own: Sequence[str] = tuple(f"thing {n}" for n in range(12)),
) -> Path:
    """Baseline, FitNet and CCL over two seeds with all that a page shows; the networks are untrained.

    `classes` are the videos', `own` those of the image teacher.
    """
    manifest = clips_manifest(clips, classes)
    teachers = write_teachers(root, clips, own)
    records = {
        name: {"dim": each.dim, "fingerprint": each.fingerprint}
        for name, each in load_teachers(teachers).items()
    }
    for seed in (0, 1):
        for label, setup, top1 in (("baseline", "", 50.0), ("fitnet", "AI", 40.0), ("ccl", "AI", 70.0)):
            figures = {"top1": top1 + 5 * seed, "retrieval": (top1, 80.0, 90.0)}
            taught = teachers if setup else []
            figures |= {"teachers": taught, "train": {"workers": 0}}
            run = write_cell(root, label, setup, seed, data=DATA, clip=CLIP, **figures)
            _complete(run, manifest, top1 + 5 * seed, records if setup else {})
    return root


def _complete(run: Path, manifest: Manifest, top1: float, teachers: dict[str, Any]) -> None:
    manifest.save(run / MANIFEST)
    recipe = Recipe(data="clips", student="r2plus1d_tiny", clip=Clip(**CLIP), train={"workers": 0})
    torch.manual_seed(0)
    save_model(run / MODEL, make_student(recipe.student, 2), recipe, manifest.classes)
    first, second = manifest.classes
    per_class = {first: {"top1": top1 - 10, "videos": 3}, second: {"top1": top1 + 10, "videos": 3}}
    counts = {"videos": 6, "read": 5, "missing": 0, "corrupt": 1, "unreadable": {"test/x": "damaged"}}
    evaluation = {"recognition": {"top1": top1, "per_class": per_class}, "counts": {"test": counts}}
    (run / f"eval-{DATA}-test.json").write_text(json.dumps(evaluation))
    lines = [{"step": s, "epoch": 1, "loss": 100 / s, "ce": 3 / s, "accuracy": s / 40} for s in (10, 20, 30)]
    (run / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4')
    summary = read_json(run / SUMMARY)
    summary["teachers"] = teachers
    summary["data"] |= {
        "manifest": manifest.hash,
        "modalities": {"audio:cnn14": {"present": 8, "silent": 2, "no track": 2}},
    }
    summary["versions"] = {"ccl": "0.1.0", "torch": "2.11.0"}
    moment = (run / SUMMARY).stat().st_mtime
    (run / SUMMARY).write_text(json.dumps(summary))
    os.utime(run / SUMMARY, (moment, moment))


class Reading(HTMLParser):
    """Tags must be balanced; collects texts, addresses and ids."""

    void = frozenset({"meta", "img", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[key] for key in ("src", "href", "xlink:href", "action") if key in values]
        assert not any(key.startswith("on") for key in values)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data
