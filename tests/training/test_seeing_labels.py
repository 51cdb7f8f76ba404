"""A teacher that uses the class of each video: of use in training, and nowhere taken for more than that."""

from __future__ import annotations

import pytest

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.evaluation.correspondence import measure
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.evaluation.probe import probe_teachers
from ccl_cli.training.build import load_teachers
from ccl_cli.training.cache.keys import key_of
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


class Reader(Teacher):
    modality, dim, sees_label, preprocess = "word", 8, True, Name()

    @classmethod
    def from_spec(cls, spec):
        return cls().freeze()

    def use_classes(self, classes):
        self.preprocess = Name(tuple(classes))

    def forward(self, x):
        return torch.nn.functional.one_hot(x % 8, 8).float()
"""
READER, SOUND = "word:reader", "audio:small?weights=random"


@pytest.fixture(autouse=True)
def _plugin(tmp_path, monkeypatch):
    install(
        tmp_path / "site",
        "reader",
        "[ccl.teachers]\nword.reader = reader:Reader\n",
        modules={"reader": SOURCE},
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def recipe(clips_folder, **changes) -> Recipe:
    base = {"teachers": [READER], "train": {"epochs": 2}}
    return small_recipe(f"folder:{clips_folder / 'set'}", base, changes)


def test_records_say_so_and_evaluation_does_not_need_it(clips_folder, tmp_path, capsys):
    """Two of its three teachers listen: the states of the sound are one count, in their common word for it."""
    experiment = recipe(clips_folder, teachers=[READER, SOUND, f"{SOUND}&seconds=0.5"])
    train(experiment, dry_run=True)
    assert "word:reader: (6,), present in 6 of 6, READS LABELS" in capsys.readouterr().out
    run = train(experiment)
    summary = RunFolder(run).summary
    assert summary["teachers"][READER]["sees_label"] is True
    sound = {"present": 8, "silent": 2, "no track": 2}
    assert summary["data"]["modalities"] == {READER: {"present": 12}, "audio": sound}
    (tmp_path / "site" / "reader.py").unlink()
    assert evaluate(run, workers=0)["recognition"]["top1"] >= 0


def test_it_cannot_be_probed(clips_folder):
    with pytest.raises(DataError, match="uses the class of each video"):
        probe_teachers(f"folder:{clips_folder / 'set'}", [READER, SOUND], workers=0)
    refusal = measure(train(recipe(clips_folder)), [READER], "test")[READER]
    assert isinstance(refusal, DataError)
    assert "uses the class" in refusal.message


def test_its_cache_belongs_to_the_labels(clips_folder):
    """The same files and classes in two tables, the second with two labels swapped."""
    manifests = []
    for swap in ({}, {"right/2": "down", "down/2": "right"}):
        names = [f"{label}/{number}" for label in ("down", "right") for number in range(6)]
        rows = [f"train/{name}.mp4,{swap.get(name, name.partition('/')[0])},train" for name in names]
        table = clips_folder / "set" / f"{len(swap)}.csv"
        table.write_text("\n".join(["path,label,split", *rows]) + "\n")
        manifests.append(load_data(f"csv:{table}"))
    experiment = recipe(clips_folder)
    for spec, differ in ((READER, True), (SOUND, False)):
        keys = set()
        for each in manifests:
            (teacher,) = load_teachers([spec], each.classes).values()
            keys.add(key_of(spec, teacher, each, experiment.cache, experiment.clip))
        assert len({key.folder for key in keys}) == 1 + differ
