from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ccl_cli.config.recipe import Executor
from ccl_cli.data.video_paths import list_videos
from ccl_cli.deploy import predict
from ccl_cli.errors import DataError, Interrupted, SystemSetupError, UsageError
from ccl_cli.evaluation.predictor import VideoPrediction
from ccl_cli.executors.blocks import BlockExecutor
from ccl_cli.library import index, query
from ccl_cli.library.approximate import search as search_approximately
from ccl_cli.library.index import index as update
from ccl_cli.library.query import nearest, search
from ccl_cli.library.store import FILE, Stamp, create, open_library
from ccl_cli.utils.files import lock_file
from tests.conftest import close_folder
from tests.helpers.models import write_run


@pytest.fixture
def videos(clips_folder, tmp_path):
    return shutil.copytree(clips_folder / "set", tmp_path / "videos")


@pytest.fixture
def read_files(monkeypatch):
    """The names of the files that are read."""
    names: list[str] = []
    real = predict.predict_videos

    def recorded(artefact, videos, *rest, **settings):
        names.extend(video.path.name for video in videos)
        return real(artefact, videos, *rest, **settings)

    monkeypatch.setattr(predict, "predict_videos", recorded)
    return names


LIBRARY = Path("library")


def contents() -> dict[str, bytes]:
    """What a library holds: the vector of every path."""
    with open_library(LIBRARY) as library:
        return {path: library.find(path)[1].tobytes() for path in library.known()}


def counts(done):
    return done.videos, done.added, done.unchanged, done.removed, done.unreadable


def test_only_what_is_new_or_has_changed_is_read(run, videos, read_files):
    assert counts(update([videos], LIBRARY)) == (18, 18, 0, 0, 0)
    assert len(read_files) == 18
    before = contents()
    read_files.clear()
    assert counts(update([], LIBRARY)) == (18, 0, 18, 0, 0)
    assert read_files == []
    changed, new = videos / "test/right/0.mp4", videos / "new.mp4"
    for path in (changed, new):
        shutil.copy(videos / "test/down/0.mp4", path)
    (videos / "test/down/2.mp4").unlink()
    assert counts(update([videos], LIBRARY)) == (18, 2, 16, 1, 0)
    assert sorted(read_files) == ["0.mp4", "new.mp4"]
    after = contents()
    assert after[str(changed)] == after[str(new)]
    untouched = before.keys() & after.keys() - {str(changed)}
    assert len(untouched) == 16
    assert all(before[path] == after[path] for path in untouched)


def test_several_folders_in_one_library(run, videos, read_files):
    update([videos / "train"], LIBRARY)
    assert counts(update([videos / "test"], LIBRARY)) == (18, 6, 0, 0, 0)
    shutil.rmtree(videos / "test" / "down")
    # The other folder is not compared.
    assert counts(update([videos / "train"], LIBRARY)) == (18, 0, 12, 0, 0)
    assert counts(update([], LIBRARY)) == (15, 0, 15, 3, 0)
    assert counts(update([], LIBRARY, forget_paths=[videos / "train"])) == (3, 0, 0, 12, 0)
    assert counts(update([], LIBRARY)) == (3, 0, 3, 0, 0)
    with pytest.raises(UsageError, match="contains no videos of"):
        update([], LIBRARY, forget_paths=[videos / "train"])
    assert len(read_files) == 18


def test_a_folder_that_is_gone_empty_or_closed_takes_nothing_out(run, videos, monkeypatch):
    update([videos / "train", videos / "test"], LIBRARY)
    with monkeypatch.context() as patch:
        close_folder(patch, "test/down")
        reported = []
        done = update([], LIBRARY, on_unreadable=lambda *each: reported.append(each))
        assert counts(done) == (18, 0, 15, 0, 1)
        assert reported == [(str(videos / "test/down"), "it cannot be looked into: Permission denied")]
    (videos / "test").rename(videos / "elsewhere")
    with pytest.raises(DataError, match="Check that its disk is mounted"):
        update([], LIBRARY)
    (videos / "test").mkdir()
    with pytest.raises(DataError, match="holds no videos"):
        update([], LIBRARY)
    assert len(contents()) == 18


def test_what_cannot_be_read_is_told_and_tried_again(run, videos):
    bad, reported = videos / "test" / "bad.mp4", []
    bad.write_text("no video")
    for _ in range(2):
        done = update([videos / "test"], LIBRARY, on_unreadable=lambda *each: reported.append(each))
        assert (done.videos, done.unreadable) == (6, 1)
    assert [path for path, _ in reported] == [str(bad)] * 2
    shutil.copy(videos / "test/down/0.mp4", bad)
    assert counts(update([], LIBRARY)) == (7, 1, 6, 0, 0)
    bad.write_text("no video again")  # what it held is not in it any more
    assert counts(update([], LIBRARY)) == (6, 0, 6, 0, 1)


def test_another_model_is_refused_or_begins_anew(run, videos, clips_folder, tmp_path, read_files):
    update([videos / "test"], LIBRARY)
    before = contents()
    other = write_run(tmp_path / "runs" / "mine" / "b", clips_folder / "set", seed=1)
    read_files.clear()
    # The newest run is another; the library keeps to its own.
    assert counts(update([], LIBRARY)) == (6, 0, 6, 0, 0)
    with pytest.raises(UsageError, match="built with another model"):
        update([], LIBRARY, model=other)
    assert contents() == before
    assert read_files == []
    assert counts(update([], LIBRARY, model=other, rebuild=True)) == (6, 6, 0, 0, 0)
    assert contents() != before
    shutil.copy(run / "model.safetensors", other / "model.safetensors")  # trained again in the same place
    with pytest.raises(UsageError, match="built with another model"):
        update([], LIBRARY)
    shutil.rmtree(other)
    with pytest.raises(DataError, match="The model of 'library' is missing"):
        update([], LIBRARY)
    assert counts(update([], LIBRARY, rebuild=True)) == (6, 6, 0, 0, 0)
    assert contents() == before


def test_nothing_is_made_where_something_is_wrong(run, videos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    for paths, folder, error, words in (
        ([], LIBRARY, UsageError, "There is nothing to index"),
        (["gone"], LIBRARY, DataError, "There is no '.*gone'"),
        ([videos], "mine", UsageError, "not a library, and not empty"),
        ([videos], "mine/thesis.txt", UsageError, "is a file"),
    ):
        with pytest.raises(error, match=words):
            update(paths, folder)
        assert not LIBRARY.exists()


def test_one_process_at_a_time(run, videos):
    held = lock_file(LIBRARY / ".lock", "", "")
    with held, pytest.raises(UsageError, match="Another process is updating 'library'"):
        update([videos], LIBRARY)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 5000, None], ids=["empty", "nonsense", "another"])
def test_a_damaged_library_is_a_sentence_and_can_be_made_anew(run, videos, content):
    test = videos / "test"
    update([test], LIBRARY)
    (LIBRARY / FILE).write_bytes(content or b"")
    if content is None:
        with closing(sqlite3.connect(LIBRARY / FILE)) as base:
            base.execute("CREATE TABLE about (key TEXT, value TEXT)")
    for call in (lambda: update([test], LIBRARY), lambda: search(list_videos(test), LIBRARY, top=1)):
        with pytest.raises((DataError, SystemSetupError), match="'library'"):
            call()
    assert update([test], LIBRARY, rebuild=True).videos == 6


def test_stopped_in_the_middle_it_goes_on(run, videos, read_files, monkeypatch):
    """A signal between two videos: what was read is in the library, and the end is that of one call."""
    real = predict.predict_videos

    def interrupted(*arguments, **settings):
        for number, prediction in enumerate(real(*arguments, **settings)):
            if number == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield prediction

    with monkeypatch.context() as patch:
        patch.setattr(predict, "predict_videos", interrupted)
        with pytest.raises(Interrupted, match=r"Stopped by SIGTERM\. Finished videos are in 'library'"):
            update([videos], LIBRARY)
    assert len(contents()) == 5
    read_files.clear()
    assert counts(update([videos], LIBRARY)) == (18, 13, 5, 0, 0)
    assert len(read_files) == 13
    assert [each.name for each in LIBRARY.iterdir() if each.name != ".lock"] == [FILE]


def test_what_an_executor_has_read_is_stored_at_once(run, videos, monkeypatch):
    def failing(model, *rest):
        yield VideoPrediction(0, torch.zeros(2), torch.ones(model.artefact.student.feature_dim))
        raise DataError("its node burned down")

    monkeypatch.setattr(predict, "_predict_blocks", failing)
    with pytest.raises(DataError, match="burned down"):
        update([videos], LIBRARY, executor=BlockExecutor(Executor()))
    assert contents() == {}


def filled(folder: Path, vectors: np.ndarray) -> Path:
    """A library of given vectors, for files that need not be there."""
    folder.mkdir()
    create(folder, model=Path("m"), fingerprint="0" * 64, dim=vectors.shape[1])
    with open_library(folder, write=True) as library:
        for number, vector in enumerate(vectors):
            library.put(f"/v/{number}.mp4", Stamp(1, 1), vector)
    return folder


def unit(rng, *shape):
    values = rng.standard_normal(shape, dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize(("videos", "top"), [(1, 1), (7, 7), (5000, 10)])
def test_exact_search_finds_what_sorting_finds(tmp_path, monkeypatch, videos, top):
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, videos, 8), unit(rng, 9, 8)
    monkeypatch.setattr(query, "_SCORES_AT_ONCE", 20_000)
    monkeypatch.setattr("ccl_cli.library.store._ROWS", 700)
    with open_library(filled(tmp_path / "l", vectors)) as library:
        cosines, numbers = nearest(library, torch.from_numpy(queries), top)
        paths = library.paths(numbers.ravel().tolist())
    products = queries @ vectors.T
    expected = np.argsort(-products, axis=1)[:, :top]
    assert [[paths[n] for n in row] for row in numbers.tolist()] == [
        [f"/v/{place}.mp4" for place in row] for row in expected.tolist()
    ]
    np.testing.assert_allclose(cosines, np.take_along_axis(products, expected, 1), atol=1e-6)


def test_a_query_in_the_library_is_not_read_again_and_does_not_find_itself(run, videos, read_files):
    update([videos], LIBRARY)
    read_files.clear()
    path, link = videos / "test/down/1.mp4", videos.parent / "link.mp4"
    link.symlink_to(path)
    for answer in search(list_videos([path, link]), LIBRARY, top=17):
        assert len(answer.hits) == 17
        assert str(path) not in [hit.path for hit in answer.hits]
        assert list(answer.hits) == sorted(answer.hits, key=lambda hit: -hit.cosine)
    assert read_files == ["link.mp4"]
    (own,) = search(list_videos(path), LIBRARY, top=3, include_self=True)
    assert (own.hits[0].path, len(own.hits)) == (str(path), 3)
    assert own.hits[0].cosine == pytest.approx(1, abs=1e-6)
    read_files.clear()
    shutil.copy(videos / "test/right/0.mp4", path)  # it has changed since
    (answer,) = search(list_videos(path), LIBRARY, top=1)
    assert read_files == ["1.mp4"]
    assert answer.hits[0].path == str(videos / "test/right/0.mp4")


def test_what_cannot_be_read_and_too_small_a_library(run, videos):
    update([videos / "test/down"], LIBRARY)
    bad = videos / "bad.mp4"
    bad.write_text("no video")
    raw = list_videos([bad, videos / "test/right/0.mp4"])
    first, second = search(raw, LIBRARY, top=10)
    assert first.fault.startswith("it is not a complete media file")
    assert (first.hits, second.fault, len(second.hits)) == ((), None, 3)
    with pytest.raises(DataError, match="There is no library at 'nowhere'"):
        search(raw, Path("nowhere"), top=1)
    update([], LIBRARY, forget_paths=[videos])
    with pytest.raises(DataError, match="has no videos"):
        search(raw, LIBRARY, top=1)


def test_search_while_it_is_written_and_where_nothing_can_be_written(run, videos):
    update([videos / "test"], LIBRARY)
    raw = list_videos([videos / "train/down/3.mp4"])
    with open_library(LIBRARY, write=True) as library:
        library.put("/x.mp4", Stamp(1, 1), np.ones(library.about.dim, np.float32))
        assert len(search(raw, LIBRARY, top=10)[0].hits) == 7
    # No journal for a reader to write:
    assert sorted(each.name for each in LIBRARY.iterdir()) == [".lock", FILE]
    assert (LIBRARY / FILE).read_bytes()[18:20] == b"\1\1"  # SQLite's mark of a file without one


def test_approximate_search(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    vectors = np.repeat(unit(rng, 40, 16), 50, 0) + 0.1 * unit(rng, 2000, 16)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folder, queries = filled(tmp_path / "l", vectors), vectors[::100]

    def refuses(library, words):
        with pytest.raises(DataError, match=words):
            search_approximately(library, folder, queries, 5, 8)

    with open_library(folder, write=True) as library:
        refuses(library, "no approximate index")
        index.build(library, folder)
        exact, expected = nearest(library, torch.from_numpy(queries), 5)
        cosines, numbers = search_approximately(library, folder, queries, 5, 8)
        assert np.mean([np.isin(a, b).mean() for a, b in zip(expected, numbers, strict=True)]) > 0.9
        np.testing.assert_allclose(cosines[:, 0], exact[:, 0], atol=1e-5)
        library.put("/new.mp4", Stamp(1, 1), vectors[0])
        refuses(library, "has changed since")
        index.build(library, folder)
        (folder / "library.faiss").write_bytes(b"half")
        refuses(library, "was damaged and has been removed")
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(SystemSetupError, match=r"pip install 'ccl-cli\[faiss\]'"):
            index.build(library, folder)
