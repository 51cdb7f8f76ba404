from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ccl_cli.data.sources import clips, generated, synthetic
from ccl_cli.errors import DataError, SystemSetupError

FEW = {
    clips: {"classes": 2, "per_class": 2, "size": 48, "seconds": 0.2},
    synthetic: {"motion_groups": 2, "clips": 2, "val_clips": 0, "test_clips": 1, "size": 24, "frames": 4},
}


@pytest.fixture(params=list(FEW), ids=["clips", "synthetic"])
def source(request):
    """A module with a source that writes its own videos."""
    return request.param


@pytest.fixture
def load(source):
    """The source, of few videos."""
    return partial(source.load, **FEW[source])


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.mp4")}


def test_settings_alone_decide_the_bytes(tmp_path, monkeypatch, load):
    for name, threads, seed in ("a", 1, 0), ("b", 3, 0), ("c", 3, 1):
        monkeypatch.setattr(generated, "cores", lambda threads=threads: threads)
        load(str(tmp_path / name), seed=seed)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert len({*a.values(), *c.values()}) == 2 * len(a)  # no video twice, not even between train and test


def test_interrupted_writing_is_completed_and_the_rest_left_alone(tmp_path, monkeypatch, source, load):
    whole = load(str(tmp_path / "whole"))
    real, calls = source.write_clip, []

    def interrupted(path, *args):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(path, *args)

    monkeypatch.setattr(source, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(str(tmp_path / "part"))
    first = calls[0].stat().st_mtime_ns
    again = load(str(tmp_path / "part"))
    assert content(tmp_path / "part") == content(tmp_path / "whole")
    assert (again.hash, calls[0].stat().st_mtime_ns) == (whole.hash, first)
    count = len(calls)
    load(str(tmp_path / "part"))
    assert len(calls) == count


def test_without_a_location_the_cache_holds_one_folder_per_settings(tmp_path, monkeypatch, load):
    monkeypatch.setenv("CCL_HOME", str(tmp_path))
    one, other = load(""), load("", seed=1)
    assert one.hash != other.hash
    assert len(list((tmp_path / one.name).iterdir())) == 2


def test_a_folder_of_something_else_is_not_touched(tmp_path, load):
    (tmp_path / "mine.mp4").write_bytes(b"holiday")
    with pytest.raises(DataError, match="not empty"):
        load(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.mp4"]
    load(str(tmp_path / "x"))
    with pytest.raises(DataError, match="other options"):
        load(str(tmp_path / "x"), seed=1)


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path, load):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemSetupError, match="Cannot write"):
        load(str(tmp_path / "file" / "clips"))
