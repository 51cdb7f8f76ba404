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
SHA = hashlib.sha256(CONTENT).hexdigest()


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
        yield state


def left(file: WeightFile) -> list[str]:
    return sorted(path.name for path in file.path.parent.glob("*"))


def test_whole_file_with_progress_once(server):
    said = []
    path = pull(server.file(size=len(CONTENT)), lambda done, total: said.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path == server.file().path
    assert said[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert left(server.file()) == ["net.pth"]
    pull(server.file())
    assert len(server.asked) == 1
    server.file().path.write_bytes(b"other")
    with pytest.raises(WeightsError, match="not the published file"):
        pull(server.file())


@pytest.mark.parametrize("checksum", [f"sha256:{SHA[:8]}", f"md5:{hashlib.md5(CONTENT).hexdigest()}", None])
def test_forms_of_checksum(server, checksum):
    assert pull(server.file(checksum)).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"checksum": "sha256:" + "0" * 64}, {"size": 5}])
def test_other_bytes_are_thrown_away(server, wrong):
    file = server.file(**wrong)
    with pytest.raises(WeightsError, match=r"net\.pth .* is not the published file") as caught:
        pull(file)
    assert caught.value.exit_code == 6
    assert left(file) == []


def test_a_cut_connection_goes_on_by_itself(server):
    server.cuts = [1_000_000, 500_000]
    assert pull(server.file()).read_bytes() == CONTENT
    assert server.asked == [
        ("/net.pth", None),
        ("/net.pth", "bytes=1000000-"),
        ("/net.pth", "bytes=1500000-"),
    ]


def test_a_broken_download_goes_on_in_the_next_command(server):
    server.cuts = [1000, 0]
    file = server.file()
    with pytest.raises(WeightsError, match="cut after 1,000 bytes"):
        pull(file)
    assert left(file) == ["net.pth.part"]
    assert pull(file).read_bytes() == CONTENT
    assert server.asked[-1] == ("/net.pth", "bytes=1000-")
    assert left(file) == ["net.pth"]


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
    with pytest.raises(SystemSetupError, match="only http and https"):
        pull(WeightFile("net.pth", target))


def test_a_part_of_another_file_is_not_mixed_in_and_a_whole_one_needs_nothing_more(server):
    file = server.file()
    file.path.parent.mkdir(parents=True)
    file.path.with_name("net.pth.part").write_bytes(CONTENT)
    assert pull(file).read_bytes() == CONTENT
    file.path.unlink()
    file.path.with_name("net.pth.part").write_bytes(b"x" * (len(CONTENT) + 1))
    with pytest.raises(WeightsError, match="has changed"):
        pull(file)
    assert pull(file).read_bytes() == CONTENT
    file.path.unlink()
    file.path.with_name("net.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match=r"net\.pth .* is not the published file"):
        pull(file)
    assert left(file) == []


@pytest.mark.parametrize(
    ("variable", "url"), [("CCL_OFFLINE", ""), ("HF_HUB_OFFLINE", "hf://timm/net/model.safetensors")]
)
def test_offline_nothing_is_asked(server, monkeypatch, variable, url):
    monkeypatch.setenv(variable, "1")
    file = WeightFile("net.pth", url) if url else server.file()
    with pytest.raises(WeightsError, match=f"{variable} is set") as caught:
        pull(file)
    assert str(file.path) in str(caught.value)
    assert file.address in str(caught.value)
    assert "Unset it and run the command again" in str(caught.value)
    assert server.asked == []


def test_absent_and_unreachable_are_sentences(server):
    with pytest.raises(WeightsError, match="answers 404"):
        pull(WeightFile("net.pth", f"{server.address}/other"))
    with pytest.raises(WeightsError, match="was not downloaded") as caught:
        pull(WeightFile("net.pth", "http://127.0.0.1:9/net.pth"))
    assert caught.value.exit_code == 6
    assert "put it at" in str(caught.value)


def test_the_checksum_of_a_zenodo_record(server, monkeypatch):
    monkeypatch.setattr("ccl_cli.teachers.weights.ZENODO", f"{server.address}/api/records/")
    entry = {"key": "net.pth", "checksum": f"md5:{hashlib.md5(CONTENT).hexdigest()}", "size": len(CONTENT)}
    server.pages["/api/records/7"] = json.dumps(
        {"id": 7, "files": [{"key": "b", "checksum": ""}, entry]}
    ).encode()
    assert pull(server.file("zenodo:7")).read_bytes() == CONTENT
    server.file().path.unlink()
    server.pages["/net.pth"] = b"something else"
    with pytest.raises(WeightsError, match=r"net\.pth .* is not the published file"):
        pull(server.file("zenodo:7"))


@pytest.mark.parametrize("page", [None, b"<html>", b'{"files": [{"key": "other", "checksum": "md5:1"}]}'])
def test_without_its_checksum_nothing_is_downloaded(server, monkeypatch, page):
    monkeypatch.setattr("ccl_cli.teachers.weights.ZENODO", f"{server.address}/api/records/")
    if page is not None:
        server.pages["/api/records/7"] = page
    file = server.file("zenodo:7")
    with pytest.raises(WeightsError, match="checksum is not available"):
        pull(file)
    assert ("/net.pth", None) not in server.asked
    assert left(file) == []


@pytest.mark.parametrize(("asked", "revision"), [("", "main"), ("@refs%2Fpr%2F1", "refs/pr/1")])
@pytest.mark.parametrize("arrives", [CONTENT, CONTENT[:-1]])
def test_what_the_hub_sends_is_checked(tmp_path, monkeypatch, arrives, asked, revision):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    stored = tmp_path / "blobs" / SHA
    link = tmp_path / "snapshots" / "model.safetensors"

    def client(repository, name, **options):
        assert (repository, name, options) == ("timm/net", "model.safetensors", {"revision": revision})
        stored.parent.mkdir()
        stored.write_bytes(arrives)
        link.parent.mkdir()
        link.symlink_to(stored)
        return str(link)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", client)
    file = WeightFile("net.safetensors", f"hf://timm/net{asked}/model.safetensors")
    if arrives == CONTENT:
        assert pull(file) == link
    else:
        with pytest.raises(WeightsError, match=r"net\.safetensors .* is not the published file"):
            pull(file)
        assert not stored.exists()
