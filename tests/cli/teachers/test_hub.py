"""A model of the Hugging Face hub from its name to a teacher: pulled over HTTP, pinned, and read offline."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import constants

from ccl_cli.config.spec import parse_model
from ccl_transformers.teacher import HubTeacher
from tests.helpers.hub_server import point_client_at, serving_hub
from tests.helpers.plugin_folder import install
from tests.plugins import hub_models

NAME = "image:hf@some/vit"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Files of a small model, and some that nobody needs."""
    folder = hub_models.write_model(tmp_path_factory.mktemp("vit"), "vit")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "pytorch_model.bin": b"a pickle", "own.py": b"", "README.md": b""}


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A hub, and the package that knows what to do with its models."""
    monkeypatch.setenv("CCL_TRUST_REMOTE_CODE", "")  # what a command notes is gone after the test
    install(
        tmp_path / "site",
        "ccl_transformers",
        "[ccl.teachers]\nimage.hf = ccl_transformers.teacher:HubTeacher\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with serving_hub() as server:
        point_client_at(server, monkeypatch, tmp_path)
        yield server


def downloaded(tmp_path) -> list[str]:
    """Names of the files that are there, and of what is only half there."""
    found = [*tmp_path.glob("hub/*/snapshots/*/*"), *tmp_path.glob("hub/*/blobs/*.incomplete")]
    return sorted(path.name for path in found)


def go_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_a_model_is_pulled_pinned_and_read_without_the_network(ccl, web, published, tmp_path, monkeypatch):
    repository = web.add("some/vit", published)
    pulled = ccl("teachers", "pull", NAME)
    assert pulled.code == 0, pulled.err
    assert downloaded(tmp_path) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    repository.commit({"config.json": b"what came later"})
    assert ccl("teachers", "pull", NAME).out == pulled.out
    go_offline(monkeypatch)
    assert sorted(ccl("teachers", "pull", NAME).out.split()) == sorted(pulled.out.split())
    facts = json.loads(ccl("teachers", "info", NAME, "--json").out)
    assert facts["dim"] == 16
    assert facts["variant"].startswith(f"some/vit@{repository.sha(1)}?pool=cls#")
    assert "not downloaded" not in str(facts["weights"])
    by_commit = HubTeacher.from_spec(parse_model(f"{NAME}?revision={repository.sha(1)}"))
    assert by_commit.fingerprint == HubTeacher.from_spec(parse_model(NAME)).fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some/gone", "'some/gone' does not exist, or you do not have access."),
        ("some/pickles", "has no model.safetensors, and ccl does not read pickles"),
        ("some/vit?revision=gone", "has no such revision."),
    ],
)
def test_what_the_hub_does_not_give_is_a_sentence_and_leaves_nothing(
    ccl, web, published, tmp_path, name, message
):
    web.add("some/vit", published)
    web.add("some/pickles", {"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    refused = ccl("teachers", "pull", f"image:hf@{name}")
    assert (refused.code, message in " ".join(refused.err.split())) == (6, True), refused.err
    assert downloaded(tmp_path) == []


def test_code_beside_a_model_is_listed_and_pulled_where_it_is_asked_for(ccl, web, published, tmp_path):
    web.add("some/vit", published)
    trusted = f"{NAME}?trust_remote_code=true"
    assert "own.py" not in ccl("teachers", "info", NAME).out
    assert "Python code, which ccl will run" in ccl("teachers", "info", trusted).out
    assert ccl("teachers", "pull", trusted).code == 0
    assert "own.py" in downloaded(tmp_path)
    assert "trust_remote_code=true" in json.loads(ccl("teachers", "info", trusted, "--json").out)["variant"]
