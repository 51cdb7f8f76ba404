from __future__ import annotations

import json
import re
import statistics

import pytest
import yaml
from huggingface_hub import ModelCard

from ccl_cli.config.recipe import Recipe
from ccl_cli.deploy.card import card, results
from ccl_cli.errors import DataError, UsageError, WeightsError
from ccl_cli.report.runs import clean
from ccl_cli.training.run.folder import SUMMARY, RunFolder, read_json
from tests.models import publish
from tests.plugin_folder import install
from tests.report.folders import write_cell, write_failed, write_run

TINY = {"student": "r2plus1d_tiny", "clip": {"frames": 4, "size": 16, "short_side": 16}}


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "1", top1=41.25, retrieval=(30.0, 50.0, 60.0), **TINY)
    publish(folder)
    data = {
        "name": "ucf51-split1",
        "manifest": "f" * 16,
        "train": 50,
        "seen": 47,
        "missing": ["a", "b"],
        "unreadable": {"c": "cut off"},
        "modalities": {
            "audio": {"present": 30, "silent": 4, "no track": 13},
            "image:resnet34": {"present": 47},
        },
    }
    change(folder, data=data, versions={"ccl": "0.1.0", "torch": "2.11.0"})
    counts = {"test": {"videos": 25, "read": 21, "missing": 3, "corrupt": 1}}
    evaluation = {"data": {"manifest": "f" * 16}, "counts": counts}
    (folder / "eval-ucf51-split1-test.json").write_text(json.dumps(evaluation))
    return folder


def change(folder, **entries) -> None:
    RunFolder(folder).update_summary(entries)


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_hubs_fields(run):
    folder, text = card(run)
    assert folder == run
    found = front(text)
    assert found["license"] == "unknown"
    assert (found["library_name"], found["pipeline_tag"]) == ("ccl", "video-classification")
    assert "video-retrieval" in found["tags"]
    recognition, retrieval = found["model-index"][0]["results"]
    assert recognition["task"] == {"type": "video-classification"}
    assert {each["type"]: each["value"] for each in recognition["metrics"]} == {
        "top1": 41.25,
        "top5": 61.25,
        "mean_class": 40.25,
    }
    assert {each["type"]: each["value"] for each in retrieval["metrics"]} == {
        "r1": 30,
        "r5": 50,
        "r10": 60,
        "map": 10,
    }
    assert recognition["dataset"] == {"name": "ucf51-split1", "type": "ucf51-split1", "split": "test"}


def test_the_hubs_client_reads_them(run):
    """It raises where it does not understand ``model-index``."""
    data = ModelCard(card(run, licence="apache-2.0")[1], ignore_metadata_errors=False).data
    assert data.license == "apache-2.0"
    assert [(each.task_type, each.metric_type, each.metric_value) for each in data.eval_results][:1] == [
        ("video-classification", "top1", 41.25)
    ]


@pytest.mark.parametrize("licence", ["", "MIT", "a b", "mit\nx: y", "[mit]"])
def test_licences_that_are_no_names(run, licence):
    with pytest.raises(UsageError, match="is not one of the Hub's names"):
        card(run, licence=licence)


def test_counts(run):
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", section(card(run)[1], "Data"), re.M))
    assert rows["listed for training"] == "50"
    assert rows["seen in training"] == "47"
    assert (rows["not on disk"], rows["unreadable"]) == ("2", "1")
    assert rows["without sound"] == "17 (4 silent, 13 no track)"
    assert rows["ucf51-split1: tested on"] == "25, of them 3 not on disk, 1 unreadable"


def test_without_a_teacher_of_sound_nobody_listened(run):
    data = read_json(run / SUMMARY)["data"] | {"modalities": {"image:resnet34": {"present": 47}}}
    change(run, data=data)
    assert "| without sound | unknown: no teacher of sound" in card(run)[1]


def test_what_was_not_recorded_is_unknown(run):
    change(run, data={"name": "ucf51-split1"})
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", section(card(run)[1], "Data"), re.M))
    for label in ("listed for training", "seen in training", "not on disk", "unreadable", "without sound"):
        assert rows[label] == "unknown"


def test_one_run_says_that_it_is_one(run):
    said = section(card(run)[1], "Results")
    assert "| ucf51-split1 | 41.2 |" in said
    assert "from one run" in said
    assert "±" not in said


def test_a_run_without_figures(tmp_path, run):
    bare = write_run(tmp_path / "2", **TINY)
    publish(bare)
    change(run, finished=False, steps=6)  # evaluated, but stopped before its end
    said = "There are no figures of the finished run", "stopped before its end, after step 6"
    for folder, why in zip((bare, run), said, strict=True):
        text = card(folder)[1]
        assert why in section(text, "Results")
        assert "model-index" not in front(text)


def test_a_model_file_alone_knows_nothing_of_its_data(run):
    folder, text = card(run / "model.safetensors")
    assert folder == run
    assert "is not recorded in the model file" in text
    assert "Classes: climb, fall." in text


# -- seeds


def bench(root, *tops, **settings):
    for seed, top1 in enumerate(tops):
        folder = write_cell(root, seed=seed, top1=top1, **TINY, **settings)
    publish(folder)
    return folder


def test_mean_and_deviation_over_a_benchmarks_seeds(tmp_path):
    last = bench(tmp_path / "bench", 40.0, 44.0, 51.0)
    write_cell(tmp_path / "bench", "baseline", "AI", 0, top1=10.0, **TINY)
    write_cell(tmp_path / "bench", "ccl", "A", 0, top1=10.0, **TINY)
    write_cell(tmp_path / "bench", phase="tune", top1=99.0, split="val", **TINY)
    write_failed(tmp_path / "bench", "ccl", "AI", 3)
    said = section(card(last)[1], "Results")
    deviation = statistics.stdev([40.0, 44.0, 51.0])
    assert f"| 51.0 (of 3 seeds: 45.0 ± {deviation:.1f}) |" in said
    assert "1 more failed" in said


def test_only_runs_that_differ_in_their_seed_alone(tmp_path):
    last = bench(tmp_path / "bench", 40.0, 44.0)
    write_cell(tmp_path / "bench", seed=7, top1=90.0, phase="final-again", optim={"lr": 0.5}, **TINY)
    write_cell(tmp_path / "bench", seed=8, top1=95.0, manifest="0" * 16, **TINY)
    found, failed = results(RunFolder(last))
    assert failed == 0
    assert {each.seeds for each in found if each.metric == "top1"} == {(40.0, 44.0)}


def test_runs_that_lie_together_are_no_benchmark(tmp_path):
    for seed in range(3):
        folder = write_run(tmp_path / "mine" / f"{seed}", seed=seed, top1=40.0 + seed, **TINY)
    assert results(RunFolder(folder))[0][0].seeds == (42.0,)


# -- teachers


def teachers(text: str) -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section(text, "Teachers"), re.M)
    return {name: (weights, licence) for name, weights, licence in rows}


@pytest.mark.parametrize(
    ("spec", "weights", "licence"),
    [
        ("audio:cnn14", r"Cnn14\_emb512\_mAP=0.420.pth", "CC BY 4.0"),
        ("audio:cnn14?weights=random", "random, on request", "none needed"),
        ("audio:cnn14@/home/me/secret/mine.pth", "a file of the user's: mine.pth", "unknown"),
        ("text:nobody-has-this", "unknown", "unknown"),
        ("audio:cnn14?weights=never-fitted", "unknown", "unknown"),
    ],
)
def test_weights_and_their_licences(tmp_path, spec, weights, licence):
    folder = write_run(tmp_path / "1", teachers=[spec], **TINY)
    publish(folder)
    (found,) = [row for name, row in teachers(card(folder)[1]).items() if name.startswith(spec[:4])]
    assert found == (weights, licence)


def test_what_timm_says(run):
    assert re.match("(bsd|apache|mit)", teachers(card(run)[1])["image:resnet34"][1])


def test_a_plugin_that_raises_is_unknown(tmp_path, monkeypatch):
    source = (
        "class Odd:\n    @classmethod\n    def from_spec(cls, spec): ...\n"
        "    @classmethod\n    def weight_files(cls, spec): raise KeyError('x')\n"
    )
    install(tmp_path / "site", "odd", "[ccl.teachers]\ntext.odd = odd_mod:Odd\n", modules={"odd_mod": source})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    folder = write_run(tmp_path / "1", teachers=["text:odd"], **TINY)
    publish(folder)
    assert teachers(card(folder)[1])["text:odd"] == ("unknown", "unknown")


def test_without_teachers(tmp_path):
    folder = write_run(tmp_path / "1", "baseline", "", **TINY)
    publish(folder)
    text = card(folder)[1]
    assert section(text, "Teachers").strip() == "None."
    assert "trained without a teacher" in text


# -- what is written by others


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
    publish(run, NASTY)
    (line,) = [line for line in card(run)[1].splitlines() if line.startswith("Classes: ")]
    assert unescaped(line) == set()
    assert all(sign.isprintable() for sign in line)
    for word in ("heading", "another", "script", "red", "license: mit"):
        assert word in line


@pytest.mark.parametrize("name", NASTY)
def test_data_sets_names_mean_nothing_to_markdown_or_yaml(run, name):
    data = read_json(run / SUMMARY)["data"] | {"name": name, "manifest": name, "train": name}
    change(
        run, data=data, evaluation={f"{name}-test": {"recognition": {"top1": 12.5}}}, device=name, method=name
    )
    text = card(run)[1]
    assert front(text)["license"] == "unknown"
    (result,) = front(text)["model-index"][0]["results"]
    assert result["dataset"]["name"] == clean(name)
    body = text.split("---\n", 2)[2]
    assert len(re.findall(r"^#", re.sub(r"(?s)```yaml.*", "", body), re.M)) == 8
    for title in ("Data", "Results"):
        for line in section(text, title).splitlines():
            rows = re.split(r"(?<!\\)\|", line) if line.startswith("|") else [re.sub("`[^`]*`", "", line)]
            assert unescaped("".join(rows)) == set()


def test_a_recipe_cannot_leave_its_fence(tmp_path):
    recipe = {"description": "x\n````\n\n# Out\n\n``````\n"}
    folder = write_run(tmp_path / "1", **TINY, **recipe)
    publish(folder)
    text = card(folder)[1]
    begin, end = re.findall(r"^ {0,3}`{7,}.*$", section(text, "Recipe"), re.M)
    assert (begin, end) == ("```````yaml", "```````")
    written = section(text, "Recipe").split(begin + "\n")[1].split("\n" + end)[0]
    assert Recipe.model_validate(yaml.safe_load(written)).description == recipe["description"]


def test_many_classes_are_counted(run):
    publish(run, [f"class {number}" for number in range(50)])
    assert "class 39 and 10 more." in card(run)[1]


def test_errors(tmp_path, run):
    with pytest.raises(DataError, match="is not a run folder"):
        card(tmp_path)
    (run / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="is damaged"):
        card(run)
    (run / "model.safetensors").unlink()
    with pytest.raises(DataError, match="holds no model yet"):
        card(run)
