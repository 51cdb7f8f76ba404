"""A teacher that uses the class of each video: of use in training, and nowhere taken for more than that."""

from __future__ import annotations

import logging

import pytest

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.evaluation.correspondence import measure
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.evaluation.probe import probe_teachers
from ccl_cli.training.build import load_teachers
from ccl_cli.training.cache.build import build_cache
from ccl_cli.training.cache.keys import key_of
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.training.train import train
from tests.helpers.plugin_folder import install
from tests.training.runs import small_recipe

SOURCE = """
import torch
from dataclasses import dataclass
from ccl_cli.teachers import Teacher


@dataclass(frozen=True)
class Name:
    classes: tuple = ()
    shape, dtype, views = (), torch.int64, "track"

    def __call__(self, window):
        return torch.tensor(len(self.classes[window.video.label]))


class Told(Teacher):
    modality, dim, sees_label, preprocess = "word", 8, True, Name()

    @classmethod
    def from_spec(cls, spec):
        return cls().freeze()

    def use_classes(self, classes):
        self.preprocess = Name(tuple(classes))

    def forward(self, x):
        return torch.nn.functional.one_hot(x % 8, 8).float()
"""
TOLD = "word:told"


@pytest.fixture(autouse=True)
def _plugin(tmp_path, monkeypatch):
    site = tmp_path / "site"
    install(site, "told", "[ccl.teachers]\nword.told = told:Told\n", modules={"told": SOURCE})
    monkeypatch.syspath_prepend(str(site))


def recipe(clips_folder, **changes) -> Recipe:
    base = {"teachers": [TOLD], "train": {"epochs": 2}}
    return small_recipe(f"folder:{clips_folder / 'set'}", base, changes)


def built(experiment):
    """The cache of the teacher that uses the classes."""
    manifest = load_data(experiment.data)
    (teacher,) = load_teachers(experiment.teachers, manifest.classes).values()
    return build_cache(TOLD, teacher, manifest, experiment, set_up("fp32"))


def relabelled(clips_folder, path, swap):
    """The same files and classes in another table, two labels swapped if asked for."""
    names = {"right": "down", "down": "right"} if swap else {}
    rows = [
        f"{split}/{label}/{n}.mp4,{names.get(label, label) if n == 2 else label},{split}"
        for label in ("down", "right")
        for split, count in (("train", 6), ("test", 3))
        for n in range(count)
    ]
    table = clips_folder / "set" / path
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return f"csv:{table}"


def test_records_say_so_and_evaluation_does_not_need_it(clips_folder, tmp_path):
    run = train(recipe(clips_folder))
    summary = RunFolder(run).summary
    assert summary["teachers"][TOLD]["sees_label"] is True
    assert summary["data"]["modalities"] == {TOLD: {"present": 12}}
    (tmp_path / "site" / "told.py").unlink()
    assert evaluate(run, workers=0)["recognition"]["top1"] >= 0


def test_a_dry_run_says_so(clips_folder, capsys):
    train(recipe(clips_folder), dry_run=True)
    assert "word:told: (6,), present in 6 of 6, READS LABELS" in capsys.readouterr().out


def test_it_cannot_be_probed(clips_folder):
    with pytest.raises(DataError, match="uses the class of each video"):
        probe_teachers(f"folder:{clips_folder / 'set'}", [TOLD, "image:small?weights=random"], workers=0)
    run = train(recipe(clips_folder))
    refusal = measure(run, [TOLD], "test")[TOLD]
    assert isinstance(refusal, DataError)
    assert "uses the class" in refusal.message


def test_its_cache_belongs_to_the_labels(clips_folder, caplog):
    same, other = (relabelled(clips_folder, f"{swap}.csv", swap) for swap in (False, True))
    first = recipe(clips_folder, data=same)
    built(first)
    moved = recipe(clips_folder, data=other)
    manifests = [load_data(each.data) for each in (first, moved)]
    assert manifests[0].files_hash == manifests[1].files_hash
    assert manifests[0].labels_hash != manifests[1].labels_hash
    for spec, differ in ((TOLD, True), ("image:small?weights=random", False)):
        folders = set()
        for each in manifests:
            (teacher,) = load_teachers([spec], each.classes).values()
            folders.add(key_of(spec, teacher, each, first.cache, first.clip).folder)
        assert (len(folders) == 2) is differ
    with caplog.at_level(logging.WARNING, "ccl"):
        run = train(moved)
    assert RunFolder(run).summary["teachers"][TOLD]["cached"] is None


def test_two_teachers_of_one_modality_are_counted_once(clips_folder):
    """Both listen: what became of the sound is one count, in their common word for it."""
    teachers = ["audio:small?weights=random", "audio:small?weights=random&seconds=0.5", TOLD]
    summary = RunFolder(train(recipe(clips_folder, teachers=teachers))).summary
    assert summary["data"]["modalities"] == {
        "audio": {"present": 8, "silent": 2, "no track": 2},
        TOLD: {"present": 12},
    }
