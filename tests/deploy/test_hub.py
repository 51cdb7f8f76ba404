from __future__ import annotations

import json
import os
import pickle
import struct

import pytest
from huggingface_hub import HfApi, constants

from ccl_cli.deploy import hub
from ccl_cli.errors import CclError, SystemSetupError, UsageError, WeightsError
from tests.helpers.hub_server import point_client_at, serving_hub
from tests.helpers.models import publish
from tests.report.folders import write_run

CLIP = {"frames": 4, "size": 16, "short_side": 16}


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "runs" / "mine" / "1", top1=40.0, student="r2plus1d_tiny", clip=CLIP)
    publish(folder)
    (folder / "eval-ucf51-split1-test.json").write_text("{}")
    (folder / "manifest.jsonl").write_text("somebody's files")
    (folder / "state").mkdir()
    return folder


@pytest.fixture
def web(tmp_path, monkeypatch):
    with serving_hub() as server:
        point_client_at(server, monkeypatch, tmp_path)
        yield server


def model_of(run) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("model.safetensors", "recipe.yaml")}


def test_what_belongs_to_the_model_is_uploaded_and_nothing_else(run, caplog):
    (run / "exported").mkdir()
    (run / "exported" / "model.onnx").write_bytes(b"graph")
    (run / "model.onnx").write_bytes(b"of somebody else")
    (run / "eval-x.json").mkdir()
    names = ("model.safetensors", "recipe.yaml", "eval-ucf51-split1-test.json", "exported/model.onnx")
    uploads = hub.uploads(run, "me/mine")
    assert len(uploads.pop("README.md")) > 1000
    assert uploads == {name: run / name for name in names}
    assert hub.uploads(run / "model.safetensors", "me/mine").keys() == {"model.safetensors", "README.md"}
    (run / "README.md").write_text("my own words")
    assert hub.uploads(run, "me/mine")["README.md"] == run / "README.md"
    assert caplog.messages == []
    os.utime(run / "README.md", (1, 1))
    hub.uploads(run, "me/mine")
    assert "is older than the run's results" in caplog.text


@pytest.mark.parametrize(
    "name", ["mine", "a/b/c", "https://huggingface.co/me/mine", "me/", "../x", "me/a b\n"]
)
def test_names_that_are_none(run, name):
    for ask in (lambda: hub.uploads(run, name), lambda: hub.push(run, name), lambda: hub.pull(name)):
        with pytest.raises(UsageError, match="is not a valid repository name"):
            ask()


def test_a_model_goes_there_and_back(run, web, tmp_path):
    address = hub.push(run, "me/mine")
    repository = web.repositories["me/mine"]
    names = hub.uploads(run, "me/mine").keys()
    assert address == f"{web.address}/me/mine/commit/{repository.sha(2)}"
    assert repository.files.keys() == {*names, ".gitattributes"}
    assert repository.files | model_of(run) == repository.files
    assert "ccl model pull me/mine --output" in repository.files["README.md"].decode()
    assert len(repository.commits) == 2  # the new repository's, and all files in one

    path = hub.pull("me/mine")
    assert path.is_relative_to(tmp_path / "hub")
    assert path.read_bytes() == (run / "model.safetensors").read_bytes()
    copy = hub.pull("me/mine", output=tmp_path / "a" / "copy")
    assert copy == tmp_path / "a" / "copy" / "model.safetensors"
    assert {each.name for each in copy.parent.iterdir() if not each.is_symlink()} == names
    assert [each.name for each in copy.parent.parent.iterdir()] == ["copy"]

    (run / "README.md").write_text("---\nlicense: mit\n---\nmy own words")
    hub.push(run, "me/mine")  # a later upload replaces the files
    assert repository.files["README.md"].endswith(b"my own words")
    assert repository.files | model_of(run) == repository.files


def test_private_and_a_revision(run, web):
    for _ in range(2):
        hub.push(run, "me/secret", private=True)
        assert web.repositories["me/secret"].private
    repository = web.add("me/open", model_of(run))
    with pytest.raises(UsageError, match="already exists and is public"):
        hub.push(run, "me/open", private=True)
    repository.commit({"model.safetensors": b"a later one, damaged"})
    assert hub.pull("me/open", revision=repository.sha(1)).is_file()
    with pytest.raises(WeightsError):
        hub.pull("me/open")
    with pytest.raises(SystemSetupError, match="no such revision"):
        hub.pull("me/open", revision="v7")


@pytest.mark.parametrize(("token", "words"), [("", "No token"), ("hf_wrong", "answers 401: Invalid cred")])
def test_no_token_and_a_wrong_one(run, web, monkeypatch, token, words):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemSetupError, match=words):
        hub.push(run, "me/mine")
    assert web.repositories == {}
    assert bool(web.asked) == bool(token)


@pytest.mark.parametrize("variable", ["CCL_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(run, web, monkeypatch, variable):
    web.add("me/mine", model_of(run))
    path = hub.pull("me/mine")
    web.asked.clear()
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SystemSetupError, match=f"Nothing was uploaded: {variable} is set"):
        hub.push(run, "me/mine")
    with pytest.raises(SystemSetupError, match=f"not in the Hub's cache, and {variable} is set"):
        hub.pull("me/other")
    assert hub.uploads(run, "me/mine")
    assert hub.pull("me/mine") == path  # from the cache
    assert web.asked == []


def test_no_network_is_not_an_old_copy(run, web, monkeypatch):
    web.add("me/mine", model_of(run))
    hub.pull("me/mine")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for ask in (lambda: hub.pull("me/mine"), lambda: hub.push(run, "me/mine")):
        with pytest.raises(SystemSetupError, match=r"cannot be reached: .*onnection refused"):
            ask()


def test_what_the_hub_refuses(run, web, monkeypatch):
    web.add("me/gated", {"model.safetensors": b""}, gated=True)
    for name, words in (("gone", "The repository 'me/gone' does not exist"), ("gated", "is gated")):
        with pytest.raises(SystemSetupError, match=words):
            hub.pull(f"me/{name}")
    web.refusal = (403, "Your storage is full.")
    with pytest.raises(SystemSetupError, match="answers 403: Your storage is full"):
        hub.push(run, "me/mine")
    web.refusal, create = None, HfApi.create_commit

    def upload_in_threads(api, *arguments, **options):
        web.refusal = (403, "You may not write here.")
        try:
            create(api, *arguments, **options)
        except Exception as error:  # the client reports large files so
            raise RuntimeError("Error while uploading") from error

    monkeypatch.setattr(HfApi, "create_commit", upload_in_threads)
    with pytest.raises(SystemSetupError, match="answers 403: You may not write here"):
        hub.push(run, "me/mine")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_only_safetensors_and_texts_are_taken(run, web, tmp_path):
    bomb = pickle.dumps(Bomb())
    others = {"pytorch_model.bin": bomb, "model.pt2": bomb, "setup.py": b"", "sub/model.safetensors": bomb}
    web.add("me/mine", model_of(run) | others)
    path = hub.pull("me/mine", output=tmp_path / "copy")
    assert {each.name for each in path.parent.iterdir()} == {"model.safetensors", "recipe.yaml"}
    assert not any(name in asked for name in others for asked in web.asked)


def with_header(run, **changed) -> bytes:
    """The run's model with another header."""
    data = (run / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8 : 8 + length])
    table["__metadata__"]["ccl"] = json.dumps(json.loads(table["__metadata__"]["ccl"]) | changed)
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda run: pickle.dumps(Bomb()), "cannot be used"),
        (lambda run: (run / "model.safetensors").read_bytes()[:-100], "cannot be used"),
        (lambda run: with_header(run, format="someone-else's"), "cannot be used"),
        (lambda run: with_header(run, classes=["climb"]), "cannot be used"),
        (
            lambda run: with_header(run, recipe={"student": "r2plus1d_tiny", "run": "rm -rf"}),
            "cannot be used",
        ),
        (None, r"contains no model\.safetensors"),
    ],
    ids=["pickle", "cut", "foreign", "classes", "recipe", "none"],
)
def test_damaged_and_hostile_models_are_never_handed_out(run, web, tmp_path, bad, words):
    web.add("me/bad", {"model.safetensors": bad(run)} if bad else {"pytorch_model.bin": pickle.dumps(Bomb())})
    with pytest.raises(CclError, match=words) as caught:
        hub.pull("me/bad", output=tmp_path / "copy")
    assert caught.value.exit_code in (4, 6)
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "exploded").exists()
