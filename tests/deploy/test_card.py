from __future__ import annotations

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from ccl_cli.config.recipe import Recipe
from ccl_cli.deploy.card import card, results
from ccl_cli.errors import DataError, UsageError, WeightsError
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.utils.text import one_line
from tests.helpers.models import publish
from tests.helpers.plugin_folder import install
from tests.report.folders import write_cell, write_failed, write_run

TINY = {"student": "r2plus1d_tiny", "clip": {"frames": 4, "size": 16, "short_side": 16}}
AUDIO = {"present": 30, "silent": 4, "no track": 13}
DATA = {
    "name": "ucf51-split1",
    "manifest": "f" * 16,
    "train": 50,
    "seen": 47,
    "missing": ["a", "b"],
    "unreadable": {"c": "cut off"},
    "modalities": {"audio": AUDIO, "image:resnet34": {"present": 47}},
}


def written(folder, *arguments, **settings):
    """A run whose student is published."""
    publish(write_run(folder, *arguments, **TINY, **settings))
    return folder


@pytest.fixture
def run(tmp_path):
    folder = written(tmp_path / "1", top1=41.25, retrieval=(30.0, 50.0, 60.0))
    change(folder, data=DATA, versions={"ccl": "0.1.0", "torch": "2.11.0"})
    counts = {"test": {"videos": 25, "read": 21, "missing": 3, "corrupt": 1}}
    (folder / "eval-ucf51-split1-test.json").write_text(json.dumps({"data": {}, "counts": counts}))
    return folder


def change(folder, **entries) -> None:
    RunFolder(folder).update_summary(entries)


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The table of a section, by its first column."""
    lines = re.findall(r"^\| (.+) \|$", section(text, title), re.M)
    return {name: rest for name, *rest in (line.split(" | ") for line in lines)}


def test_the_hubs_client_reads_the_fields(run):
    """It raises where it does not understand ``model-index``."""
    data = ModelCard(card(run, licence="apache-2.0")[1], ignore_metadata_errors=False).data
    assert data.license == "apache-2.0"
    assert (data.library_name, data.pipeline_tag) == ("ccl", "video-classification")
    results = {each.metric_type: (each.task_type, each.metric_value) for each in data.eval_results}
    recognition = {"top1": 41.25, "top5": 61.25, "mean_class": 40.25}
    retrieval = {"r1": 30.0, "r5": 50.0, "r10": 60.0, "map": 10.0}
    expected = {name: ("video-classification", value) for name, value in recognition.items()}
    assert results == expected | {name: ("other", value) for name, value in retrieval.items()}
    (names,) = {(each.dataset_name, each.dataset_split) for each in data.eval_results}
    assert names == ("ucf51-split1", "test")
    assert front(card(run)[1])["license"] == "unknown"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DATA, ["50", "47", "2", "1", "17 (4 silent, 13 no track)"]),
        (
            {**DATA, "modalities": {}},
            ["50", "47", "2", "1", "unknown: not determined without an audio teacher"],
        ),
        ({"name": "ucf51-split1"}, ["unknown"] * 5),
    ],
)
def test_counts_of_videos(run, data, expected):
    change(run, data=data)
    counts = rows(card(run)[1], "Data")
    names = ("listed for training", "used in training", "not on disk", "unreadable", "without sound")
    assert [counts[name] for name in names] == [[each] for each in expected]
    assert counts["ucf51-split1: test videos"] == ["25, including 3 not on disk, 1 unreadable"]


def test_results_of_one_run_and_of_none(tmp_path, run):
    results = section(card(run)[1], "Results")
    assert "| ucf51-split1 | 41.2 |" in results
    assert "from one run" in results
    assert "±" not in results
    folder, text = card(run / "model.safetensors")
    assert folder == run
    assert "is not recorded in the model file" in text
    change(run, finished=False, steps=6)  # evaluated, but stopped before its end
    bare = written(tmp_path / "2", "baseline", "")
    reasons = {run: "unfinished and stopped after step 6", bare: "has not been evaluated on a test split"}
    for folder, reason in reasons.items():
        text = card(folder)[1]
        assert reason in section(text, "Results")
        assert "model-index" not in front(text)
    assert section(text, "Teachers").strip() == "None."
    assert "trained without a teacher" in text


def test_mean_and_deviation_over_runs_that_differ_in_their_seed_alone(tmp_path):
    root = tmp_path / "bench"
    for seed, top1 in enumerate((40.0, 44.0, 51.0)):
        last = write_cell(root, seed=seed, top1=top1, **TINY)
    publish(last)
    write_cell(root, "baseline", "AI", 0, top1=10.0, **TINY)
    write_cell(root, "ccl", "A", 0, top1=10.0, **TINY)
    write_cell(root, phase="tune", top1=99.0, split="val", **TINY)
    write_cell(root, seed=7, top1=90.0, phase="final-again", optim={"lr": 0.5}, **TINY)
    write_cell(root, seed=8, top1=95.0, manifest="0" * 16, **TINY)
    write_failed(root, "ccl", "AI", 3)
    text = section(card(last)[1], "Results")
    assert "| 51.0 (of 3 seeds: 45.0 ± 5.6) |" in text
    assert "1 more failed" in text
    for seed in range(3):  # runs that lie together are no benchmark
        folder = write_run(tmp_path / "mine" / f"{seed}", seed=seed, top1=40.0 + seed, **TINY)
    assert results(RunFolder(folder))[0][0].seeds == (42.0,)


@pytest.mark.parametrize(
    ("spec", "weights", "licence"),
    [
        ("audio:cnn14", r"Cnn14\\_emb512\\_mAP=0.420.pth", "CC BY 4.0"),
        ("image:resnet34", ".+", "(bsd|apache|mit).*"),  # as timm records it
        ("audio:cnn14?weights=random", "random, as requested", "none needed"),
        ("audio:cnn14@/home/me/secret/mine.pth", "local file: mine.pth", "unknown"),
        ("text:nobody-has-this", "unknown", "unknown"),
        ("text:odd", "unknown", "unknown"),  # it raises
        ("audio:cnn14?weights=never-fitted", "unknown", "unknown"),
    ],
)
def test_weights_and_their_licences(tmp_path, monkeypatch, spec, weights, licence):
    source = (
        "class Odd:\n    @classmethod\n    def from_spec(cls, spec): ...\n"
        "    @classmethod\n    def weight_files(cls, spec): raise KeyError('x')\n"
    )
    install(tmp_path / "site", "odd", "[ccl.teachers]\ntext.odd = odd_mod:Odd\n", modules={"odd_mod": source})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    table = rows(card(written(tmp_path / "1", teachers=[spec]))[1], "Teachers")
    (row,) = [row for name, row in table.items() if name.startswith(spec[:4])]
    assert re.fullmatch(weights, row[0])
    assert re.fullmatch(licence, row[1])


NASTY = [
    "a|b",
    "# heading\n# another",
    "<script>alert(1)</script>",
    "[link](http://x)",
    "`code` **bold** _it_ ~~gone~~ $x$ &lt;",
    "\u202e\x1b[31mred\x00",
    "---\nlicense: mit\n---",
]


def unescaped(text: str) -> set[str]:
    """Signs that mean something to Markdown and have no backslash before them."""
    return set(re.findall(r"(?<!\\)[`*_\[\]<>|&~$]", re.sub(r"\\\\", "", text)))


def test_class_names_mean_nothing_to_markdown(run):
    publish(run, [*NASTY, *(f"class {number}" for number in range(43))])
    (line,) = [line for line in card(run)[1].splitlines() if line.startswith("Classes: ")]
    assert unescaped(line) == set()
    assert all(sign.isprintable() for sign in line)
    assert line.endswith("class 32 and 10 more.")


@pytest.mark.parametrize("name", NASTY)
def test_data_sets_names_mean_nothing_to_markdown_or_yaml(run, name):
    evaluation = {f"{name}-test": {"recognition": {"top1": 12.5}}}
    data = DATA | {"name": name, "manifest": name, "train": name}
    change(run, data=data, evaluation=evaluation, device=name, method=name)
    text = card(run)[1]
    assert front(text)["license"] == "unknown"
    (result,) = front(text)["model-index"][0]["results"]
    assert result["dataset"]["name"] == one_line(name)
    body = text.split("---\n", 2)[2]
    assert len(re.findall(r"^#", re.sub(r"(?s)```yaml.*", "", body), re.M)) == 8
    for title in ("Data", "Results"):
        for line in section(text, title).splitlines():
            cells = re.split(r"(?<!\\)\|", line) if line.startswith("|") else [re.sub("`[^`]*`", "", line)]
            assert unescaped("".join(cells)) == set()


def test_a_recipe_cannot_leave_its_fence(tmp_path):
    description = "x\n````\n\n# Out\n\n``````\n"
    text = card(written(tmp_path / "1", description=description))[1]
    fence = "`" * 7
    recipe = section(text, "Recipe").split(f"\n{fence}yaml\n")[1].split(f"\n{fence}")[0]
    assert Recipe.model_validate(yaml.safe_load(recipe)).description == description


def test_errors(tmp_path, run):
    for licence in ("", "MIT", "mit\nx: y", "[mit]"):
        with pytest.raises(UsageError, match="is not a licence identifier of the Hub"):
            card(run, licence=licence)
    with pytest.raises(DataError, match="is not a run folder"):
        card(tmp_path)
    (run / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="is damaged"):
        card(run)
    (run / "model.safetensors").unlink()
    with pytest.raises(DataError, match="holds no model yet"):
        card(run)
