from __future__ import annotations

import json

import numpy as np
import pytest

from ccl_cli.cli.probe import _verdicts
from ccl_cli.evaluation.classifiers import RULE
from tests.cli.conftest import spawn


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A csv without its videos, and embeddings of one teacher that knows class b and of one that knows none."""
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    lines, rows = ["path,label,split"], {"knows": {}, "guesses": {}}
    for split, count in (("train", 12), ("test", 10)):
        for number, label in enumerate("abc"):
            for each in range(count):
                key = f"{split}/{label}{each}"
                lines.append(f"{key}.mp4,{label},{split}")
                rows["knows"][key] = rng.normal(size=4) + 9 * (number == 1)
                rows["guesses"][key] = rng.normal(size=4)
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    for name, embeddings in rows.items():
        np.savez(folder / f"{name}.npz", **embeddings)
    return folder


@pytest.fixture
def words(table):
    teachers = [f"audio:precomputed@{table / 'knows.npz'}", f"text:precomputed@{table / 'guesses.npz'}"]
    return [
        "probe",
        "--data",
        f"csv:{table / 'set.csv'}",
        "--workers",
        "0",
        "--teacher",
        teachers[0],
        "--teacher",
        teachers[1],
    ]


def test_the_tables(ccl, words):
    result = ccl(*words)
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    header, *rows = lines[:4]
    assert header == ["teacher", "kNN", "%", "linear", "%", "chance", "%", "test", "videos"]
    assert [row[0] for row in rows] == ["audio:precomputed", "text:precomputed", "audio:precomputed"]
    assert rows[0][-2:] == ["33.3", "30/30"]
    assert rows[2][1:3] == ["+", "text:precomputed"]
    assert ["1", "highly", "b", "100"] in lines
    assert ["0", "highly", "none"] in lines
    correlated = [line[2] for line in lines if line[:1] == ["Correlated"]]
    assert correlated == ["audio:precomputed", "text:precomputed"]
    assert "".join(result.out.split()).endswith("".join(RULE.split()))


def test_the_classes_fit_a_narrow_terminal_and_keep_their_figures(monkeypatch):
    """Of more classes than fit, the first are shown; no line breaks between a name and its figure."""
    monkeypatch.setenv("COLUMNS", "60")
    names = [f"{'x' * (n % 17)} class{n}" for n in range(45)]
    text = _verdicts(
        {
            "teachers": ["audio:t"],
            "verdicts": {"highly": names, "weakly": [], "not": ["z"]},
            "per_class": {name: {"recall": 99.6} for name in [*names, "z"]},
        }
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith("  45 highly ")
    assert all(line.startswith(" " * 12) for line in lines[2:-2])
    assert all(line.endswith((" 100,", "and 5 more")) for line in lines[1:-2])
    assert lines[-2:] == ["   0 weakly none", "   1 not    z 100"]


def test_each_class(ccl, words):
    lines = [line.split() for line in ccl(*words, "--per-class").out.splitlines()]
    assert ["class", "audio:precomputed", "verdict", "text:precomputed", "verdict"] in lines
    (row,) = [line for line in lines if line[:1] == ["b"]]
    assert row[:4] == ["b", "100", "%", "highly"]
    assert row[-1] != "highly"


def test_json_holds_everything(ccl, words):
    result = ccl(*words, "--json", "--k", "5")
    assert result.out.count("\n") == 1
    said = json.loads(result.out)
    assert said.keys() == {"data", "k", "rule", "teachers", "probes"}
    assert (said["k"], said["data"]["split"], said["data"]["train"]) == (5, "test", 36)
    first, second, pair = said["probes"]
    assert pair["teachers"] == ["audio:precomputed", "text:precomputed"]
    assert first["per_class"]["b"].keys() == {"videos", "recall", "low", "high", "chance", "verdict"}
    assert first["per_class"]["b"]["recall"] == 100
    assert first["verdicts"]["highly"] == ["b"]
    assert first["linear"] > second["linear"]


def test_what_is_wrong_is_a_sentence(ccl, words):
    assert "No teacher is named." in ccl(*words[:5]).err
    result = ccl(*words, "--split", "val")
    assert (result.code, result.out) == (4, "")
    assert "has no val split" in result.err
    result = ccl(*words, "--teacher", "audio:cnn15", "--teacher", "image:precomputed")
    assert (result.code, result.err.count("Error: ")) == (5, 2)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(words):
    # slow: two processes that import torch
    one, two = (
        json.loads(done.stdout)
        for done in (spawn(*words, "--json"), spawn(*words, "--json", "--num-processes", "2"))
    )
    assert one == two
