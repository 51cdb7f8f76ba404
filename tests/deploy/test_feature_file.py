from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ccl_cli.data.manifest import Video
from ccl_cli.deploy.feature_file import check_features, feature_file
from ccl_cli.deploy.predict import Feature
from ccl_cli.errors import Interrupted, UsageError
from ccl_cli.evaluation.model import load_student
from ccl_cli.utils.signals import Stopped
from ccl_plugins.precomputed import open_table

NAMES = ["a/b", "=x\n", "\udcff"]
SUFFIXES = [".npz", ".safetensors", ".parquet"]


@pytest.fixture(scope="module")
def model(untrained_run):
    return load_student(untrained_run)


def vector(model, row: int) -> torch.Tensor:
    return (torch.arange(model.artefact.student.feature_dim) + row).float()


def feature(model, row: int, name: str) -> Feature:
    return Feature(Video(name, Path(f"x/{name}.mp4"), 0, "test"), vector(model, row), row + 1, None)


def write(path, model, names, stop=False):
    with feature_file(path, model, "fp32") as features:
        for row, name in enumerate(names):
            features.add(feature(model, row, name))
        features.add(Feature(Video("bad", Path("x/bad.mp4"), 0, "test"), None, 0, "it is bad"))
        if stop:
            raise Stopped(signal.SIGTERM)
    return path


def read(path):
    """Names, paths, windows, embedding and what the file says of itself."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            lists = [file[name].tolist() for name in ("names", "paths", "windows")]
            return *lists, file["embedding"], json.loads(str(file["about"]))
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            header = file.metadata()
            lists = [json.loads(header[name]) for name in ("names", "paths", "windows")]
            return *lists, file.get_tensor("embedding"), json.loads(header["ccl"])
    from pyarrow import parquet

    table = parquet.read_table(path)
    assert table.schema.field("embedding").type.list_size > 0
    lists = [table[name].to_pylist() for name in ("name", "path", "windows")]
    about = parquet.read_metadata(path).metadata[b"ccl"]
    return *lists, np.array(table["embedding"].to_pylist(), np.float32), json.loads(about)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_holds_the_vectors_as_they_are_and_says_what_they_are(model, tmp_path, suffix):
    path = write(tmp_path / f"f{suffix}", model, NAMES)
    names, paths, windows, embedding, about = read(path)
    assert names == ["a/b", "=x\n", "\\udcff"]
    assert paths == ["x/a/b.mp4", "x/=x\n.mp4", "x/\\udcff.mp4"]
    assert windows == [1, 2, 3]
    assert embedding.dtype == np.float32
    assert np.array_equal(embedding, np.stack([vector(model, row) for row in range(3)]))
    assert about["format"] == "ccl-features-1"
    assert about["scaled"] is False
    assert about["model"]["sha256"] == model.fingerprint
    assert about["dim"] == embedding.shape[1]
    assert about["unreadable"] == {"x/bad.mp4": "it is bad"}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_readable_is_a_file_without_rows(model, tmp_path, suffix):
    names, *_, embedding, about = read(write(tmp_path / f"f{suffix}", model, []))
    assert names == []
    assert len(embedding) == 0
    assert about["unreadable"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_finished_is_kept_when_told_to_stop(model, tmp_path, suffix):
    with pytest.raises(Interrupted, match=r"f\.partial"):
        write(tmp_path / f"f{suffix}", model, NAMES, stop=True)
    names, *_ = read(tmp_path / f"f.partial{suffix}")
    assert len(names) == 3
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_file_is_a_teacher(model, tmp_path, suffix):
    table = open_table(str(write(tmp_path / f"f{suffix}", model, NAMES)))
    assert len(table) == 3
    assert table.find("train/a/b") == "a/b"
    assert np.array_equal(table.rows("a/b")[0], vector(model, 0))


def test_parquet_is_written_as_it_comes(model, tmp_path):
    with feature_file(tmp_path / "f.parquet", model, "fp32") as features:
        for row in range(2500):
            features.add(feature(model, row, str(row)))
            assert len(features.vectors) < 1024
    names, _, windows, embedding, _ = read(tmp_path / "f.parquet")
    assert names == [str(row) for row in range(2500)]
    assert windows[-1] == 2500
    assert embedding[2000, 0] == 2000


def test_another_format_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"Use \.npz, \.safetensors, \.parquet"):
        check_features(tmp_path / "f.csv")
