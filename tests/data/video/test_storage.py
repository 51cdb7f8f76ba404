"""Bytes of a file, of a web server, and of any other store that fsspec knows."""

from __future__ import annotations

import os

import fsspec
import numpy as np
import pytest

from ccl_cli.data.video import storage
from ccl_cli.data.video.storage import Member, Packed, length, read_range, size_of
from ccl_cli.errors import DataError, SystemSetupError
from tests.helpers.web import Server, serving

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def server(file, monkeypatch):
    monkeypatch.setattr(storage, "_PAUSES", (0.0, 0.0))
    with serving(Server(root=file.parent)) as server:
        yield server


@pytest.fixture(params=["file", "memory", "server"])
def address(request, file):
    """The same bytes in each kind of store."""
    if request.param == "file":
        return str(file)
    if request.param == "memory":
        fsspec.filesystem("memory").pipe("/shards/a.tar", CONTENT)
        return "memory://shards/a.tar"
    return f"{request.getfixturevalue('server').address}/a.tar"


def test_bytes_are_read_by_offset(address):
    assert length(address) == len(CONTENT)
    for begin, size in ((0, 123), (70_000, 30_000), (5, 0)):
        assert read_range(address, begin, size) == CONTENT[begin : begin + size]


def test_a_file_that_ends_before_is_an_error_and_not_fewer_bytes(address):
    with pytest.raises(DataError, match=r"ends before byte 100,010: it is cut off"):
        read_range(address, 99_990, 20)


def test_an_absent_file_is_named(address):
    for call in (length, lambda address: read_range(address, 0, 1)):
        with pytest.raises(DataError, match=r"'.*gone' (is not there|cannot be read: No such file)"):
            call(address.replace("a.tar", "gone"))


def test_a_file_that_is_replaced_is_opened_again(file, tmp_path):
    assert read_range(str(file), 0, 4) == CONTENT[:4]
    other = tmp_path / "b"
    other.write_bytes(b"other")
    os.replace(other, file)
    assert read_range(str(file), 0, 5) == b"other"


@pytest.mark.parametrize("faults", [["busy"], ["cut"], ["cut", "busy"], ["moved"], ["busy", "moved", "cut"]])
def test_faults_that_pass_are_tried_again(server, faults):
    server.faults = list(faults)
    assert read_range(f"{server.address}/a.tar", 10, 50_000) == CONTENT[10:50_010]
    assert server.faults == []


def test_faults_that_stay_are_one_sentence(server):
    server.faults = ["busy"] * 3
    with pytest.raises(SystemSetupError, match=r"a\.tar' cannot be read: 503"):
        read_range(f"{server.address}/a.tar", 0, 10)
    assert server.faults == []


def test_a_server_that_ignores_ranges_is_named(server):
    server.ranges = False
    with pytest.raises(SystemSetupError, match="whole files only, no parts of them") as error:
        read_range(f"{server.address}/a.tar", 0, 10)
    assert "copy the folder to this machine" in error.value.hint


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
