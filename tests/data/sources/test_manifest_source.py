from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import load_data
from ccl_cli.errors import CclError, DataError


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Of a folder with four small files, one of them for testing, written with its root."""
    for name in ("train/a/1", "train/a/2", "train/b/1", "test/b/1"):
        path = tmp_path / "set" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    path = tmp_path / "m.jsonl"
    source = load_data(f"folder:{tmp_path}/set")
    source.save(path, tmp_path / "set")
    return path


def edited(path: Path, line: int, /, **values) -> Path:
    lines = path.read_text().splitlines()
    row = json.loads(lines[line - 1])
    row |= values
    lines[line - 1] = json.dumps({key: value for key, value in row.items() if value != "drop"})
    path.write_text("\n".join(lines))
    return path


def test_it_is_the_source_it_was_made_from(manifest, tmp_path, caplog):
    source = load_data(f"folder:{tmp_path}/set")
    loaded = load_data(f"manifest:{manifest}")
    assert loaded == source
    assert loaded.hash == source.hash
    assert json.loads(manifest.read_text().splitlines()[1])["path"] == "test/b/1.mp4"
    assert not caplog.records


def test_the_videos_may_be_moved(manifest, tmp_path):
    before = load_data(f"manifest:{manifest}").hash
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    moved = load_data(f"manifest:{manifest}?root={tmp_path}/elsewhere")
    assert moved.hash == before
    assert not moved.missing("train")
    header = json.loads(manifest.read_text().splitlines()[0])
    edited(manifest, 1, root="elsewhere")
    assert load_data(f"manifest:{manifest}") == moved
    assert header["root"] == f"{tmp_path}/set"


def test_that_videos_have_changed_is_told(manifest, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("ccl_cli.data.sources.manifest._log.propagate", True)
    (tmp_path / "set/train/a/1.mp4").unlink()
    loaded = load_data(f"manifest:{manifest}")
    assert len(loaded.missing("train")) == 1
    assert "have changed" in caplog.text


@pytest.mark.parametrize(
    ("line", "values", "reason"),
    [
        (2, {"label": "drop"}, "line 2: there is no label"),
        (3, {"id": "drop"}, "line 3: there is no id"),
        (3, {"path": "drop"}, "line 3: there is no path"),
        (3, {"split": "drop"}, "line 3: there is no split"),
        (3, {"speed": 1}, "line 3: .*unexpected keyword argument 'speed'"),
        (2, {"label": 2}, "line 2: the label 2 is not one of the 2 classes"),
        (2, {"label": -1}, "the label -1"),
        (2, {"label": "a"}, "the label 'a'"),
        (2, {"label": True}, "the label True"),
        (2, {"start": -0.5}, "line 2: the start -0.5 is not a number of seconds"),
        (2, {"end": -1}, "the end -1 is not"),
        (2, {"end": float("nan")}, "the end nan is not"),
        (2, {"start": "1"}, "the start '1' is not"),
        (2, {"start": 2, "end": 1.5}, "ends at 1.5 s, before it begins"),
        (5, {"path": "../x.mp4"}, "line 5: the path '../x.mp4' leaves the folder"),
        (5, {"path": "a/../../x.mp4"}, "leaves the folder"),
        (5, {"id": 3}, "the id must be a text"),
        (5, {"path": 3}, "the path must be a text, or say where in a shard"),
        (5, {"path": ""}, "the path must be a text"),
        (5, {"path": {"key": "a"}}, "shard: "),
        (5, {"path": {"shard": 1, "key": "a"}}, "shard: Input should be a valid string"),
        (5, {"path": {"shard": "a", "key": "a", "members": [["mp4", -1, 2]]}}, "members.0.1: "),
        (5, {"path": {"shard": "a", "key": "a", "members": 5}}, "members: "),
        (2, {"id": "train/a/2"}, "lists 'train/a/2' more than once"),
        (2, {"split": "dev"}, "unknown split 'dev'"),
        (1, {"videos": 5}, "not a complete manifest"),
        (1, {"classes": None}, "not a complete manifest"),
        (1, {"root": 7}, "not a complete manifest"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(manifest, line, values, reason):
    with pytest.raises(DataError, match=reason) as caught:
        load_data(f"manifest:{edited(manifest, line, **values)}")
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -30])
def test_one_that_is_cut_off_is_refused(manifest, kept):
    manifest.write_text(manifest.read_text()[:kept])
    if kept == -1:  # only the last line's end is lost
        assert len(load_data(f"manifest:{manifest}").videos) == 4
        return
    with pytest.raises(DataError, match="not a complete manifest"):
        load_data(f"manifest:{manifest}")


def test_a_row_that_is_no_object(manifest):
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:-1], "[1]"]))
    with pytest.raises(DataError, match="line 5"):
        load_data(f"manifest:{manifest}")


def test_no_name_and_no_file():
    for text in ("manifest", "manifest:absent.jsonl"):
        with pytest.raises(CclError) as caught:
            load_data(text)
        assert caught.value.exit_code == 4


def test_harmless_dots_in_paths(manifest, tmp_path):
    edited(manifest, 2, path="train/../test/b/1..mp4")
    assert isinstance(load_data(f"manifest:{manifest}"), Manifest)
