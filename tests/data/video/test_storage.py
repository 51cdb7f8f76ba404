"""Bytes of a file, of a web server, and of any other store that fsspec knows."""

from __future__ import annotations

import fsspec
import numpy as np
import pytest

from ccl_cli.data.video import storage
from ccl_cli.data.video.storage import Member, Packed, address_size, read_range, size_of
from ccl_cli.errors import DataError, SystemSetupError
from tests.helpers.web import Server, serving

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_PAUSES", (0.0, 0.0))
    (tmp_path / "a.tar").write_bytes(CONTENT)
    with serving(Server(root=tmp_path)) as server:
        yield server


@pytest.mark.parametrize("store", ["file", "memory", "server"])
def test_bytes_are_read_by_offset(server, tmp_path, store):
    fsspec.filesystem("memory").pipe("/shards/a.tar", CONTENT)
    folder = {"file": str(tmp_path), "memory": "memory://shards", "server": server.address}[store]
    assert address_size(f"{folder}/a.tar") == len(CONTENT)
    for begin, size in ((0, 123), (70_000, 30_000), (5, 0)):
        assert read_range(f"{folder}/a.tar", begin, size) == CONTENT[begin : begin + size]
    with pytest.raises(DataError, match=r"ends before byte 100,010: it is cut off"):
        read_range(f"{folder}/a.tar", 99_990, 20)
    for call in (address_size, lambda address: read_range(address, 0, 1)):
        with pytest.raises(DataError, match=r"'.*gone' (is not there|cannot be read: No such file)"):
            call(f"{folder}/gone")


@pytest.mark.parametrize("faults", [["busy"], ["cut"], ["moved"], ["busy", "moved", "cut"], ["busy"] * 3])
def test_faults_of_a_server_are_tried_again(server, faults):
    server.faults = list(faults)
    if len(set(faults)) < len(faults):
        with pytest.raises(SystemSetupError, match=r"a\.tar' cannot be read: 503"):
            read_range(f"{server.address}/a.tar", 0, 10)
    else:
        assert read_range(f"{server.address}/a.tar", 10, 50_000) == CONTENT[10:50_010]
    assert server.faults == []


def test_a_server_that_ignores_ranges_is_named(server):
    server.ranges = False
    with pytest.raises(SystemSetupError, match="whole files only, no parts of them"):
        read_range(f"{server.address}/a.tar", 0, 10)


def test_the_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    with pytest.raises(DataError, match="is not there"):
        read_range("http://shards.example/a.tar", 0, 4)
    assert server.asked[-1][0] == "http://shards.example/a.tar"


def test_an_address_that_fsspec_cannot_read_says_what_to_install():
    with pytest.raises(SystemSetupError, match=r"'nosuch://' .*Protocol not known: nosuch") as error:
        read_range("nosuch://bucket/a.tar", 0, 1)
    assert "pip install 'ccl-cli[remote]'" in error.value.hint


def test_a_packed_video_is_as_large_as_its_members():
    assert size_of(Packed("https://x/a.tar", "k", (Member("json", 512, 10), Member("jpgs", 1024, 90)))) == 100
    assert size_of(Packed("/nowhere/a.tar", "k", (Member("json", 512, 10),))) is None
