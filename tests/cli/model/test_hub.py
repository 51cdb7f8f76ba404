from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import table
from tests.helpers.hub_server import point_client_at, serving_hub
from tests.helpers.models import publish
from tests.report.folders import write_run

TINY = {"student": "r2plus1d_tiny", "clip": {"frames": 4, "size": 16, "short_side": 16}}


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "runs" / "mine" / "1", top1=40.0, **TINY)
    publish(folder)
    return folder


def test_a_card_beside_the_newest_model_is_not_replaced_unasked(ccl, run):
    result = ccl("model", "card", "--license", "mit")
    assert (result.code, result.out) == (0, "runs/mine/1/README.md\n")
    text = (run / "README.md").read_text()
    assert "license: mit\n" in text.split("---\n")[1]
    (run / "README.md").write_text("my own words")
    result = ccl("model", "card", str(run))
    assert result.code == 2
    assert "exists." in result.err
    assert (run / "README.md").read_text() == "my own words"
    assert ccl("model", "card", str(run), "--license", "mit", "--force").code == 0
    assert (run / "README.md").read_text() == text


def test_a_card_elsewhere(ccl, run):
    text = ccl("model", "card", "--output", "-").out
    assert text.startswith("---\n")
    assert json.loads(ccl("model", "card", "--output", "-", "--json").out) == {"card": text}
    path = "new folder/card.md"
    assert json.loads(ccl("model", "card", "--output", path, "--json").out) == {"path": path}
    assert Path(path).read_text() == text
    assert not (run / "README.md").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["card", "absent"], 4, "'absent' is not a run folder."),
        (["card", "--license", "My Own"], 2, "is not a licence identifier of the Hub"),
        (["push", "mine", "--dry-run"], 2, "Use OWNER/NAME."),
        (["push", "me/mine", "absent", "--dry-run"], 4, "'absent' is not a run folder."),
        (["push", "me/mine"], 6, "Nothing was uploaded: HF_HUB_OFFLINE is set."),
        (["pull", "mine"], 2, "Use OWNER/NAME."),
        (["pull", "me/mine", "--output", "runs"], 2, "'runs' exists."),
    ],
)
def test_errors(ccl, run, monkeypatch, words, code, sentence):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = ccl("model", *words)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err


def test_what_would_be_uploaded(ccl, run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    listed = json.loads(ccl("model", "push", "me/mine", "--dry-run", "--json").out)
    sizes = {each["name"]: each["bytes"] for each in listed}
    assert set(sizes) == {"model.safetensors", "recipe.yaml", "README.md"}
    assert sizes["recipe.yaml"] == (run / "recipe.yaml").stat().st_size
    header, first, *_ = table(ccl("model", "push", "me/mine", str(run), "--dry-run").out)
    assert header == ["file", "bytes"]
    assert first == ["model.safetensors", f"{sizes['model.safetensors']:,}"]


def test_from_one_machine_to_another(ccl, run, tmp_path, monkeypatch):
    with serving_hub() as hub:
        point_client_at(hub, monkeypatch, tmp_path)
        pushed = ccl("model", "push", "me/mine", "--private")
        assert pushed.code == 0, pushed.err
        assert pushed.out.startswith(f"{hub.address}/me/mine/commit/")
        pulled = ccl("model", "pull", "me/mine", "--output", "a copy")
    assert (pulled.code, pulled.out) == (0, "a copy/model.safetensors\n")
    assert "ccl predict 'a copy/model.safetensors' my_videos" in pulled.err
    assert Path("a copy/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert ccl("model", "card", "a copy/model.safetensors", "--output", "-").out.startswith("---\n")
