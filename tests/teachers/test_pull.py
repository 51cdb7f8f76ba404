"""Downloads of weights, from a server on this machine and an imitation of the Hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from ccl_cli.errors import SystemSetupError, WeightsError
from ccl_cli.teachers.weights import WeightFile, pull
from tests.helpers.web import Server, go_online, serving

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


@dataclass
class Weights(Server):
    """A web server that has a file of weights."""

    pages: dict[str, bytes] = field(default_factory=lambda: {"/net.pth": CONTENT})

    def file(self, checksum: str | None = f"sha256:{SHA}", **others) -> WeightFile:
        return WeightFile("net.pth", f"{self.address}/net.pth", checksum, **others)


@pytest.fixture
def server(monkeypatch):
    go_online(monkeypatch)
    with serving(Weights()) as state:
        monkeypatch.setattr("ccl_cli.teachers.weights.ZENODO", f"{state.address}/api/records/")
        yield state


def left(file: WeightFile) -> list[str]:
    return sorted(path.name for path in file.path.parent.glob("*"))


def refused(file: WeightFile, match: str, files: list[str]) -> None:
    """A pull fails with a sentence and leaves these files."""
    with pytest.raises(WeightsError, match=match) as caught:
        pull(file)
    assert caught.value.exit_code == 6
    assert left(file) == files


def test_whole_file_with_progress_once(server):
    said = []
    path = pull(server.file(size=len(CONTENT)), lambda done, total: said.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert said == sorted(said)
    assert said[-1] == (len(CONTENT), len(CONTENT))
    assert pull(server.file()) == path == server.file().path
    assert len(server.asked) == 1
    path.write_bytes(b"other")
    refused(server.file(), "not the published file", ["net.pth"])


@pytest.mark.parametrize("checksum", [f"sha256:{SHA[:8]}", f"md5:{MD5}", None])
def test_forms_of_checksum(server, checksum):
    assert pull(server.file(checksum)).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"checksum": "sha256:" + "0" * 64}, {"size": 5}])
def test_other_bytes_are_thrown_away(server, wrong):
    refused(server.file(**wrong), r"net\.pth .* is not the published file", [])


def test_a_cut_connection_goes_on_by_itself_and_a_broken_one_in_the_next_command(server):
    server.cuts = [1_000_000, 500_000, 0]
    refused(server.file(), "cut after 1,500,000 bytes", ["net.pth.part"])
    assert pull(server.file()).read_bytes() == CONTENT
    starts = [None, *(f"bytes={begin}-" for begin in (1_000_000, 1_500_000, 1_500_000))]
    assert server.asked == [("/net.pth", start) for start in starts]
    assert left(server.file()) == ["net.pth"]


def test_a_server_without_ranges_sends_all_again_and_one_that_redirects_is_followed(server):
    server.redirects["/net.pth"] = f"{server.address}/elsewhere"
    server.pages["/elsewhere"] = CONTENT
    server.ranges, server.cuts = False, [1000]
    assert pull(server.file()).read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/net.pth", "file:///etc/hostname", "data:,abc"])
def test_addresses_and_redirects_off_the_web_are_refused(server, target):
    server.redirects["/net.pth"] = target
    for file in (server.file(), WeightFile("net.pth", target)):
        with pytest.raises(SystemSetupError):
            pull(file)
        assert left(file) == []


def test_a_part_of_another_file_is_not_mixed_in_and_a_whole_one_needs_nothing_more(server):
    file = server.file()
    part = file.path.with_name("net.pth.part")
    part.parent.mkdir(parents=True)
    for content in (CONTENT, b"x" * (len(CONTENT) + 1)):
        part.write_bytes(content)
        if content != CONTENT:
            refused(file, "has changed", ["net.pth.part"])
        assert pull(file).read_bytes() == CONTENT
        file.path.unlink()
    part.write_bytes(b"x" * 1000)
    refused(file, r"net\.pth .* is not the published file", [])


@pytest.mark.parametrize(
    ("variable", "url"), [("CCL_OFFLINE", ""), ("HF_HUB_OFFLINE", "hf://timm/net/model.safetensors")]
)
def test_offline_nothing_is_asked(server, monkeypatch, variable, url):
    monkeypatch.setenv(variable, "1")
    file = WeightFile("net.pth", url) if url else server.file()
    with pytest.raises(WeightsError, match=f"{variable} is set") as caught:
        pull(file)
    assert all(each in str(caught.value) for each in (str(file.path), file.address, "Unset it"))
    assert server.asked == []


def test_absent_and_unreachable_are_sentences(server):
    refused(WeightFile("net.pth", f"{server.address}/other"), "answers 404", [])
    refused(WeightFile("net.pth", "http://127.0.0.1:9/net.pth"), "was not downloaded", [])


def test_the_checksum_of_a_zenodo_record(server):
    entries = [{"key": "b", "checksum": ""}, {"key": "net.pth", "checksum": f"md5:{MD5}", "size": 3_000_000}]
    server.pages["/api/records/7"] = json.dumps({"id": 7, "files": entries}).encode()
    assert pull(server.file("zenodo:7")).read_bytes() == CONTENT
    server.file().path.unlink()
    server.pages["/net.pth"] = b"something else"
    refused(server.file("zenodo:7"), r"net\.pth .* is not the published file", [])


@pytest.mark.parametrize("page", [None, b"<html>", b'{"files": [{"key": "other", "checksum": "md5:1"}]}'])
def test_without_its_checksum_nothing_is_downloaded(server, page):
    server.pages |= {} if page is None else {"/api/records/7": page}
    refused(server.file("zenodo:7"), "checksum is not available", [])
    assert ("/net.pth", None) not in server.asked


@pytest.mark.parametrize(("asked", "revision"), [("", "main"), ("@refs%2Fpr%2F1", "refs/pr/1")])
@pytest.mark.parametrize("arrives", [CONTENT, CONTENT[:-1]], ids=["whole", "cut"])
def test_what_the_hub_sends_is_checked(tmp_path, monkeypatch, arrives, asked, revision):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    stored, link = tmp_path / "blobs" / SHA, tmp_path / "snapshots" / "model.safetensors"

    def client(repository, name, **options):
        assert (repository, name, options) == ("timm/net", "model.safetensors", {"revision": revision})
        for path in (stored, link):
            path.parent.mkdir()
        stored.write_bytes(arrives)
        link.symlink_to(stored)
        return str(link)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", client)
    file = WeightFile("net.safetensors", f"hf://timm/net{asked}/model.safetensors")
    if arrives == CONTENT:
        assert pull(file) == link
    else:
        refused(file, r"net\.safetensors .* is not the published file", [])
        assert not stored.exists()
