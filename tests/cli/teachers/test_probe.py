from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.evaluation.verdicts import RULE
from tests.cli.conftest import table
from tests.reliability.processes import in_two_processes


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
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
def words(embeddings):
    knows, guesses = (
        f"audio:precomputed@{embeddings / 'knows.npz'}",
        f"text:precomputed@{embeddings / 'guesses.npz'}",
    )
    data = ["--data", f"csv:{embeddings / 'set.csv'}", "--workers", "0"]
    return ["teachers", "probe", *data, "--teacher", knows, "--teacher", guesses]


def test_the_tables(ccl, words):
    result = ccl(*words)
    assert (result.code, result.err) == (0, "")
    header, *rows = table(result.out)
    assert header == ["teacher", "kNN", "%", "linear", "%", "chance", "%", "test", "videos"]
    assert [row[0] for row in rows[:3]] == ["audio:precomputed", "text:precomputed", "audio:precomputed"]
    assert rows[0][-2:] == ["33.3", "30/30"]
    assert rows[2][1:3] == ["+", "text:precomputed"]
    assert ["audio:precomputed", "highly", "1", "b", "100"] in rows
    assert ["text:precomputed", "highly", "0", "none"] in rows
    assert "".join(result.out.split()).endswith("".join(RULE.split()))
    assert ["audio:precomputed", "b", "100", "highly"] in table(ccl(*words, "--per-class").out)


def test_json_holds_everything(ccl, words):
    probed = json.loads(ccl(*words, "--json", "--k", "5").out)
    assert probed.keys() == {"data", "k", "rule", "teachers", "probes"}
    assert (probed["k"], probed["data"]["split"], probed["data"]["train"]) == (5, "test", 36)
    first, second, pair = probed["probes"]
    assert pair["teachers"] == ["audio:precomputed", "text:precomputed"]
    assert first["per_class"]["b"].keys() == {"videos", "recall", "low", "high", "chance", "verdict"}
    assert first["verdicts"]["highly"] == ["b"]
    assert first["linear"] > second["linear"]


def test_what_is_wrong_is_a_sentence(ccl, words):
    assert "No teacher was named." in ccl(*words[:6]).err
    result = ccl(*words, "--split", "val")
    assert (result.code, "has no val split" in result.err) == (4, True)
    result = ccl(*words, "--teacher", "audio:cnn15", "--teacher", "image:precomputed")
    assert (result.code, result.err.count("Error: ")) == (5, 2)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(ccl, words):
    together, _ = in_two_processes(Path.cwd(), *words, "--json", "--quiet")
    assert json.loads(together) == json.loads(ccl(*words, "--json").out)
