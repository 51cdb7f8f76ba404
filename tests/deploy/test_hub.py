from __future__ import annotations

import json
import os
import pickle
import struct

import pytest
from huggingface_hub import constants

from ccl_cli.deploy import hub
from ccl_cli.errors import DataError, SystemSetupError, UsageError, WeightsError
from tests.helpers.hub_server import point_client_at, serving_hub
from tests.helpers.models import publish
from tests.report.folders import write_run

# The client's own way of uploading over git LFS, as of 2.4.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

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


# -- what is uploaded


def test_what_belongs_to_the_model_and_nothing_else(run):
    (run / "exported").mkdir()
    (run / "exported" / "model.onnx").write_bytes(b"graph")
    (run / "model.onnx").write_bytes(b"of somebody else")
    (run / "eval-x.json").mkdir()
    names = {each.name: each.size for each in hub.uploads(run, "me/mine")}
    files = ("model.safetensors", "recipe.yaml", "eval-ucf51-split1-test.json", "exported/model.onnx")
    assert names.pop("README.md") > 1000
    assert names == {name: (run / name).stat().st_size for name in files}
    assert not (run / "README.md").exists()


def test_a_card_that_is_there_is_taken_as_it_is(run, caplog):
    (run / "README.md").write_text("my own words")
    uploads = {each.name: each for each in hub.uploads(run, "me/mine")}
    assert uploads["README.md"].size == len("my own words")
    assert caplog.messages == []
    os.utime(run / "README.md", (1, 1))
    hub.uploads(run, "me/mine")
    assert "is older than the run's results" in caplog.text


def test_a_model_file_alone(run):
    assert [each.name for each in hub.uploads(run / "model.safetensors", "me/mine")] == [
        "model.safetensors",
        "README.md",
    ]


@pytest.mark.parametrize(
    "name",
    ["mine", "a/b/c", "https://huggingface.co/me/mine", "me/", "../x", "me/a b\n", "me/a--b", "me/x.git"],
)
def test_names_that_are_none(run, name):
    for ask in (lambda: hub.uploads(run, name), lambda: hub.push(run, name), lambda: hub.pull(name)):
        with pytest.raises(UsageError, match="is not a valid repository name"):
            ask()


# -- there and back


def test_a_model_goes_there_and_back(run, web, tmp_path):
    address = hub.push(run, "me/mine")
    repository = web.repositories["me/mine"]
    assert address == f"{web.address}/me/mine/commit/{repository.sha(2)}"
    assert set(repository.files) == {*(each.name for each in hub.uploads(run, "me/mine")), ".gitattributes"}
    assert repository.files | model_of(run) == repository.files
    assert "ccl model pull me/mine --output" in repository.files["README.md"].decode()
    assert len(repository.commits) == 2  # the new repository's, and all files in one

    path = hub.pull("me/mine")
    assert path.is_relative_to(tmp_path / "hub")
    assert path.read_bytes() == (run / "model.safetensors").read_bytes()

    copy = hub.pull("me/mine", output=tmp_path / "a" / "copy")
    assert copy == tmp_path / "a" / "copy" / "model.safetensors"
    assert {each.name for each in copy.parent.iterdir()} == {
        each.name for each in hub.uploads(run, "me/mine")
    }
    assert not any(each.is_symlink() for each in copy.parent.iterdir())
    assert [each.name for each in copy.parent.parent.iterdir()] == ["copy"]

    (run / "README.md").write_text("---\nlicense: mit\n---\nmy own words")
    hub.push(run, "me/mine")  # a later upload replaces the files
    assert repository.files["README.md"].endswith(b"my own words")
    assert repository.files | model_of(run) == repository.files


def test_private(run, web):
    hub.push(run, "me/secret", private=True)
    assert web.repositories["me/secret"].private
    hub.push(run, "me/secret", private=True)
    web.add("me/open", {})
    with pytest.raises(UsageError, match="already exists and is public"):
        hub.push(run, "me/open", private=True)
    assert web.repositories["me/open"].files == {}


def test_a_revision(run, web):
    repository = web.add("me/mine", model_of(run))
    repository.commit({"model.safetensors": b"a later one, damaged"})
    assert (
        hub.pull("me/mine", revision=repository.sha(1)).read_bytes()
        == (run / "model.safetensors").read_bytes()
    )
    with pytest.raises(WeightsError):
        hub.pull("me/mine")
    with pytest.raises(SystemSetupError, match="no such revision"):
        hub.pull("me/mine", revision="v7")


# -- refusals


@pytest.mark.parametrize(
    ("token", "message", "hint"),
    [
        ("", "No token for", "hf auth login"),
        (
            "hf_wrong",
            "answers 401: Invalid credentials in Authorization header.",
            "Check that the token has write access.",
        ),
    ],
)
def test_no_token_and_a_wrong_one(run, web, monkeypatch, token, message, hint):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemSetupError, match=message) as caught:
        hub.push(run, "me/mine")
    assert hint in caught.value.hint
    assert web.repositories == {}
    assert bool(web.asked) == bool(token)


@pytest.mark.parametrize("variable", ["CCL_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(run, web, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SystemSetupError, match=f"Nothing was uploaded: {variable} is set"):
        hub.push(run, "me/mine")
    with pytest.raises(SystemSetupError, match=f"not in the Hub's cache, and {variable} is set"):
        hub.pull("me/mine")
    assert hub.uploads(run, "me/mine")
    assert web.asked == []
    monkeypatch.delenv(variable)
    web.add("me/mine", model_of(run))
    path = hub.pull("me/mine")
    web.asked.clear()
    monkeypatch.setenv(variable, "1")
    assert hub.pull("me/mine") == path  # from the cache
    assert web.asked == []


def test_no_network_is_not_an_old_copy(run, web, monkeypatch):
    web.add("me/mine", model_of(run))
    hub.pull("me/mine")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for ask in (lambda: hub.pull("me/mine"), lambda: hub.push(run, "me/mine")):
        with pytest.raises(SystemSetupError, match=r"cannot be reached: .*onnection refused"):
            ask()


@pytest.mark.parametrize(
    ("name", "message"), [("gone", "The repository 'me/gone' does not exist"), ("gated", "is gated")]
)
def test_repositories_that_cannot_be_pulled(web, name, message):
    web.add("me/gated", {"model.safetensors": b""}, gated=True)
    with pytest.raises(SystemSetupError, match=message):
        hub.pull(f"me/{name}")


@pytest.mark.parametrize(
    ("refusal", "full", "message"),
    [
        ((403, "You may not write to me."), False, "answers 403: You may not write to me"),
        (None, True, "answers 403: Your storage is full"),
    ],
)
def test_an_upload_that_the_hub_refuses(run, web, refusal, full, message):
    web.refusal, web.full = refusal, full
    with pytest.raises(SystemSetupError, match=message) as caught:
        hub.push(run, "me/mine")
    assert caught.value.hint == "Check that the token has write access."


# -- nobody is trusted


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


def test_a_repository_without_a_model(web, tmp_path):
    web.add("me/other", {"pytorch_model.bin": pickle.dumps(Bomb()), "README.md": b"# Other"})
    with pytest.raises(DataError, match=r"contains no model\.safetensors"):
        hub.pull("me/other", output=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not any("resolve" in asked for asked in web.asked)


def with_header(run, **changed) -> bytes:
    """The run's model with another header."""
    data = (run / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8 : 8 + length])
    header = json.loads(table["__metadata__"]["ccl"]) | changed
    table["__metadata__"]["ccl"] = json.dumps(header)
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize(
    "bad",
    [
        lambda run: pickle.dumps(Bomb()),
        lambda run: (run / "model.safetensors").read_bytes()[:-100],
        lambda run: with_header(run, format="someone-else's"),
        lambda run: with_header(run, classes=["climb"]),
        lambda run: with_header(run, recipe={"student": "r2plus1d_tiny", "run": "rm -rf"}),
    ],
    ids=["pickle", "cut", "foreign", "classes", "recipe"],
)
def test_damaged_and_hostile_models_are_never_handed_out(run, web, tmp_path, bad):
    web.add("me/bad", {"model.safetensors": bad(run)})
    with pytest.raises(WeightsError, match="The model in the repository 'me/bad' cannot be used") as caught:
        hub.pull("me/bad", output=tmp_path / "copy")
    assert "Train again" not in str(caught.value)
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "exploded").exists()
