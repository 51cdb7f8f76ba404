from __future__ import annotations

import json
import os

import pytest

from tests.cli.conftest import spawn
from tests.hub_server import serving_hub
from tests.models import publish
from tests.report.folders import write_run

TINY = {"student": "r2plus1d_tiny", "clip": {"frames": 4, "size": 16, "short_side": 16}}


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "runs" / "mine" / "1", top1=40.0, **TINY)
    publish(folder)
    return folder


def test_a_card_beside_the_newest_model(ccl, run):
    result = ccl("card", "--license", "mit")
    assert (result.code, result.out) == (0, "runs/mine/1/README.md\n")
    header = (run / "README.md").read_text().split("---\n")[1]
    assert "license: mit\n" in header


def test_a_card_is_not_replaced_unasked(ccl, run):
    (run / "README.md").write_text("my own words")
    result = ccl("card", str(run))
    assert result.code == 2
    assert "exists." in result.err
    assert (run / "README.md").read_text() == "my own words"
    assert ccl("card", str(run), "--force").code == 0
    assert (run / "README.md").read_text().startswith("---\n")


def test_a_card_elsewhere(ccl, run, tmp_path):
    shown = ccl("card", "--output", "-")
    assert shown.out.startswith("---\n")
    assert ccl("card", "--output", "new folder/card.md").out == "new folder/card.md\n"
    assert (tmp_path / "new folder" / "card.md").read_text() == shown.out
    assert not (run / "README.md").exists()
    assert ccl("card", "--output", "runs").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["card", "absent"], 4, "'absent' is not a run folder."),
        (["card", "--license", "My Own"], 2, "is not one of the Hub's names"),
        (["push", "mine", "--dry-run"], 2, "It is OWNER/NAME."),
        (["push", "me/mine", "--run", "absent", "--dry-run"], 4, "'absent' is not a run folder."),
        (["push", "me/mine"], 6, "Nothing was uploaded: HF_HUB_OFFLINE is set."),
        (["pull", "mine"], 2, "It is OWNER/NAME."),
        (["pull", "me/mine", "--output", "runs"], 2, "'runs' exists."),
    ],
)
def test_errors(ccl, run, monkeypatch, arguments, code, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = ccl(*arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "Traceback" not in result.err


def test_what_would_be_uploaded(ccl, run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    listed = json.loads(ccl("push", "me/mine", "--dry-run", "--json").out)
    sizes = {each["name"]: each["bytes"] for each in listed}
    assert set(sizes) == {"model.safetensors", "recipe.yaml", "README.md"}
    assert sizes["recipe.yaml"] == (run / "recipe.yaml").stat().st_size
    table = ccl("push", "me/mine", "--dry-run").out.splitlines()
    assert table[0].split() == ["file", "bytes"]
    assert table[1].split() == ["model.safetensors", f"{sizes['model.safetensors']:,}"]


@pytest.mark.slow
def test_from_one_machine_to_another(run, tmp_path):
    """In processes of their own, with nothing but environment variables that say where the Hub is."""
    with serving_hub() as hub:
        environment = {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "",
            "CCL_OFFLINE": "",
        }
        refused = spawn("push", "me/mine", **environment, HF_TOKEN="")
        assert (refused.returncode, hub.asked) == (6, [])
        assert "There is no token" in refused.stderr
        pushed = spawn("push", "me/mine", "--private", **environment, HF_TOKEN=hub.token)
        assert (pushed.returncode, pushed.stderr) == (0, "")
        assert pushed.stdout.startswith(f"{hub.address}/me/mine/commit/")
        pulled = spawn("pull", "me/mine", "--output", "a copy", **environment, HF_TOKEN=hub.token)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout == "a copy/model.safetensors\n"
    assert "ccl predict my_videos --model 'a copy/model.safetensors'" in pulled.stderr
    assert (tmp_path / "a copy" / "model.safetensors").read_bytes() == (
        run / "model.safetensors"
    ).read_bytes()
    described = spawn("card", "a copy/model.safetensors", "--output", "-")
    assert described.stdout.startswith("---\n"), described.stderr
    assert os.access(tmp_path / "a copy", os.R_OK | os.X_OK)
