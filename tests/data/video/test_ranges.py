from __future__ import annotations

import os
import socket
import sys

import numpy as np
import pytest

from ccl_cli.data.video import ranges, web
from ccl_cli.data.video.ranges import length, read_range, read_whole
from ccl_cli.errors import DataError, EnvironmentError_
from tests.data.server import serving

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "_PAUSES", (0.0, 0.0))
    with serving(tmp_path) as server:
        yield server
    web._connections().clear()


def test_a_file_is_read_by_offset(file):
    assert length(str(file)) == len(CONTENT)
    assert read_range(str(file), 70_000, 30_000) == CONTENT[70_000:]
    assert read_range(str(file), 5, 0) == b""
    assert read_whole(str(file)) == CONTENT


def test_a_file_that_ends_before_is_an_error_and_not_fewer_bytes(file):
    with pytest.raises(DataError, match=r"ends before byte 100,001: it is cut off"):
        read_range(str(file), 99_990, 11)


def test_a_file_that_is_replaced_is_opened_again(file, tmp_path):
    assert read_range(str(file), 0, 4) == CONTENT[:4]
    other = tmp_path / "b"
    other.write_bytes(b"other")
    os.replace(other, file)
    assert read_range(str(file), 0, 5) == b"other"


def test_files_that_are_not_read_any_more_are_closed(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(ranges._OPEN + 20):
        path = tmp_path / str(number)
        path.write_bytes(b"x")
        read_range(str(path), 0, 1)
    assert len(os.listdir("/proc/self/fd")) <= before + ranges._OPEN


def test_an_absent_file_is_named(tmp_path):
    for call in (length, read_whole):
        with pytest.raises(DataError, match=r"'.*gone' cannot be read: No such file or directory\."):
            call(str(tmp_path / "gone"))


# ---- a web server


def test_parts_come_through_one_connection(file, server):
    address = f"{server.url}/a.tar"
    assert length(address) == len(CONTENT)
    for begin in (0, 123, 99_000):
        assert read_range(address, begin, 1000) == CONTENT[begin : begin + 1000]
    assert server.connections == 1
    assert server.asked[-1] == ("/a.tar", "bytes=99000-99999")


def test_past_the_end_on_a_server_is_an_error_too(file, server):
    for begin in (99_990, 100_000):
        with pytest.raises(DataError, match="it is cut off"):
            read_range(f"{server.url}/a.tar", begin, 20)
    assert length(f"{server.url}/a.tar") == len(CONTENT)  # the connection is still in order


@pytest.mark.parametrize("faults", [["busy"], ["cut"], ["cut", "busy"], ["moved"], ["busy", "moved", "cut"]])
def test_faults_that_pass_are_tried_again(file, server, faults):
    server.faults = list(faults)
    assert read_range(f"{server.url}/a.tar", 10, 50_000) == CONTENT[10:50_010]
    assert server.faults == []


def test_faults_that_stay_are_one_sentence(file, server):
    server.faults = ["busy"] * 9
    with pytest.raises(EnvironmentError_, match=r"a\.tar' cannot be read: the server answers 503"):
        read_range(f"{server.url}/a.tar", 0, 10)
    server.faults = ["moved"] * 9
    with pytest.raises(EnvironmentError_, match="redirects again and again"):
        read_range(f"{server.url}/a.tar", 0, 10)
    server.faults = []
    assert read_range(f"{server.url}/a.tar", 0, 10) == CONTENT[:10]


def test_a_server_that_ignores_ranges_is_named_and_its_file_not_read(file, server):
    server.ranges = False
    for call in (length, lambda address: read_range(address, 0, len(CONTENT))):
        with pytest.raises(EnvironmentError_, match="whole files only, no parts of them") as error:
            call(f"{server.url}/a.tar")
        assert "copy the folder to this machine" in error.value.hint
    server.ranges = True
    assert read_range(f"{server.url}/a.tar", 7, 7) == CONTENT[7:14]


def test_what_a_server_does_not_have(file, server):
    with pytest.raises(DataError, match=r"b\.tar' is not there: the server answers 404"):
        read_range(f"{server.url}/b.tar", 0, 1)


def test_no_server_is_one_sentence(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(EnvironmentError_, match=r"cannot be read: Connection refused"):
        read_range(f"http://127.0.0.1:{port}/a.tar", 0, 1)


def test_the_proxy_of_the_environment_is_used(file, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    with pytest.raises(DataError, match="404"):
        read_range("http://shards.example/a.tar", 0, 4)
    assert server.asked[-1][0] == "http://shards.example/a.tar"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert read_range(f"{server.url}/a.tar", 0, 4) == CONTENT[:4]


# ---- other stores


def test_other_addresses_go_through_fsspec():
    import fsspec

    fsspec.filesystem("memory").pipe("/shards/a.tar", CONTENT)
    assert length("memory://shards/a.tar") == len(CONTENT)
    assert read_range("memory://shards/a.tar", 1000, 10) == CONTENT[1000:1010]
    with pytest.raises(DataError, match="it is cut off"):
        read_range("memory://shards/a.tar", 99_990, 20)
    with pytest.raises(DataError, match=r"'memory://shards/b\.tar' is not there"):
        length("memory://shards/b.tar")


def test_without_fsspec_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(EnvironmentError_, match=r"'s3://' are read through fsspec, which cannot") as error:
        read_range("s3://bucket/a.tar", 0, 1)
    assert "pip install 'ccl-cli[remote]'" in error.value.hint


def test_a_store_that_fsspec_does_not_know_is_named():
    with pytest.raises(EnvironmentError_, match=r"'nosuch://' .*Protocol not known: nosuch"):
        read_range("nosuch://bucket/a.tar", 0, 1)
