from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors import safe_open

from ccl_cli.data.manifest import Video
from ccl_cli.deploy.feature_file import check_features, feature_file
from ccl_cli.deploy.predict import Feature
from ccl_cli.errors import UsageError
from ccl_cli.evaluation.model import load_student
from ccl_plugins.precomputed import open_table

NAMES = ["a/b", "=x\n", "\udcff"]
SUFFIXES = [".npz", ".safetensors", ".parquet"]


@pytest.fixture(scope="module")
def model(untrained_run):
    return load_student(untrained_run)


def vector(model, row: int) -> torch.Tensor:
    return (torch.arange(model.artefact.student.feature_dim) + row).float()


def write(path, model, names):
    with feature_file(path, model, "fp32") as features:
        for row, name in enumerate(names):
            video = Video(name, Path(f"x/{name}.mp4"), 0, "test")
            features.add(Feature(video, vector(model, row), row + 1, None))
            assert len(features.vectors) < 1024 or path.suffix != ".parquet"
        features.add(Feature(Video("bad", Path("x/bad.mp4"), 0, "test"), None, 0, "it is bad"))
    return path


def read(path):
    """Names, paths, windows, embedding and what the file says of itself."""
    lists = ("names", "paths", "windows")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return *(file[name].tolist() for name in lists), file["embedding"], json.loads(str(file["about"]))
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            header = {name: json.loads(text) for name, text in file.metadata().items()}
            return *(header[name] for name in lists), file.get_tensor("embedding"), header["ccl"]
    table = parquet.read_table(path)
    assert table.schema.field("embedding").type.list_size > 0
    columns = [table[name].to_pylist() for name in ("name", "path", "windows", "embedding")]
    about = parquet.read_metadata(path).metadata[b"ccl"]
    return *columns[:3], np.array(columns[3], np.float32), json.loads(about)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_holds_the_vectors_as_they_are_and_says_what_they_are(model, tmp_path, suffix):
    path = write(tmp_path / f"f{suffix}", model, NAMES)
    names, paths, windows, embedding, about = read(path)
    assert names == ["a/b", "=x\n", "\\udcff"]
    assert paths == ["x/a/b.mp4", "x/=x\n.mp4", "x/\\udcff.mp4"]
    assert windows == [1, 2, 3]
    assert embedding.dtype == np.float32
    assert np.array_equal(embedding, np.stack([vector(model, row) for row in range(3)]))
    assert (about["format"], about["scaled"], about["dim"]) == ("ccl-features-1", False, embedding.shape[1])
    assert about["model"]["sha256"] == model.fingerprint
    assert about["unreadable"] == {"x/bad.mp4": "it is bad"}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    if suffix != ".parquet":  # the file is a teacher
        table = open_table(str(path))
        assert table.find("train/a/b") == "a/b"
        assert np.array_equal(table.rows("a/b")[0], vector(model, 0))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_readable_is_a_file_without_rows(model, tmp_path, suffix):
    names, *_, embedding, about = read(write(tmp_path / f"f{suffix}", model, []))
    assert (names, len(embedding), list(about["unreadable"])) == ([], 0, ["x/bad.mp4"])


def test_parquet_is_written_as_it_comes(model, tmp_path):
    names, _, windows, embedding, _ = read(write(tmp_path / "f.parquet", model, map(str, range(2500))))
    assert names == [str(row) for row in range(2500)]
    assert (windows[-1], embedding[2000, 0]) == (2500, 2000)


def test_another_format_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="is not supported"):
        check_features(tmp_path / "f.csv")
