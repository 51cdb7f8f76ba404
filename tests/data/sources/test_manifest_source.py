from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from tests.data.media import touch


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Of a folder with four small files, one of them for testing, written with its root."""
    touch(*(tmp_path / f"set/{name}.mp4" for name in ("train/a/1", "train/a/2", "train/b/1", "test/b/1")))
    load_data(f"folder:{tmp_path}/set").save(tmp_path / "m.jsonl", tmp_path / "set")
    return tmp_path / "m.jsonl"


def edited(path: Path, line: int, /, **values) -> Path:
    lines = path.read_text().splitlines()
    row = json.loads(lines[line - 1]) | values
    lines[line - 1] = json.dumps({key: value for key, value in row.items() if value != "drop"})
    path.write_text("\n".join(lines))
    return path


def test_it_is_the_source_it_was_made_from(manifest, tmp_path, caplog):
    source, loaded = load_data(f"folder:{tmp_path}/set"), load_data(f"manifest:{manifest}")
    assert (loaded, loaded.hash) == (source, source.hash)
    assert json.loads(manifest.read_text().splitlines()[1])["path"] == "test/b/1.mp4"
    assert not caplog.records


def test_the_videos_may_be_moved(manifest, tmp_path):
    before = load_data(f"manifest:{manifest}").hash
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    moved = load_data(f"manifest:{manifest}?root={tmp_path}/elsewhere")
    assert moved.hash == before
    assert not moved.missing("train")
    assert (
        load_data(f"manifest:{edited(manifest, 1, root='elsewhere')}") == moved
    )  # below the manifest's folder


def test_that_videos_have_changed_is_told(manifest, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("ccl_cli.data.sources.manifest._log.propagate", True)
    (tmp_path / "set/train/a/1.mp4").unlink()
    assert len(load_data(f"manifest:{manifest}").missing("train")) == 1
    assert "have changed" in caplog.text


@pytest.mark.parametrize(
    ("line", "values", "reason"),
    [
        *((3, {key: "drop"}, f"m.jsonl.*'{key}'") for key in ("id", "path", "label", "split")),
        (3, {"speed": 1}, "unexpected keyword argument 'speed'"),
        (2, {"start": 2, "end": 1.5}, "segment of 'test/b/1'"),
        (5, {"path": 3}, "train/b/1"),
        (5, {"path": {"key": "a"}}, "shard"),
        (5, {"path": {"shard": 1, "key": "a"}}, "shard: "),
        (5, {"path": {"shard": "a", "key": "a", "members": [["mp4", -1, 2]]}}, "members.0.1: "),
        (1, {"videos": 5}, "not a complete manifest: 4 of 5 rows"),
        (1, {"classes": None}, "not a complete manifest"),
        (1, {"root": 7}, "not a complete manifest"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(manifest, line, values, reason):
    with pytest.raises(DataError, match=reason) as caught:
        load_data(f"manifest:{edited(manifest, line, **values)}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_or_no_manifest_is_refused(manifest):
    text = manifest.read_text()
    manifest.write_text(text[:-1])  # only the last line's end is lost
    assert len(load_data(f"manifest:{manifest}").videos) == 4
    for damaged in (text[:0], text[:1], text[:100], text[:-30], text + "[1]\n"):
        manifest.write_text(damaged)
        with pytest.raises(DataError, match="not a complete manifest"):
            load_data(f"manifest:{manifest}")
    for name in ("manifest", "manifest:absent.jsonl"):
        with pytest.raises(DataError, match="cannot be read"):
            load_data(name)
