from __future__ import annotations

import os
import signal
import sqlite3

import pytest

from ccl_cli.data.checks.findings import ABSENT, DIGEST, LOOK, Effort, Lost, Store, examine
from ccl_cli.data.checks.inspect import Subject
from ccl_cli.errors import EnvironmentError_, Interrupted

ONE = Effort(1, 60.0)
NO_TIME = Effort(1, 0.0)  # whatever has to be looked at is lost


@pytest.fixture
def files(clips_folder, tmp_path) -> list[Subject]:
    """Four videos and an absent one."""
    names = [tmp_path / f"v{number}.mp4" for number in range(5)]
    for path, source in zip(names, sorted((clips_folder / "set").rglob("*.mp4")), strict=False):
        path.write_bytes(source.read_bytes())
    names[2].unlink()
    return [Subject(str(path)) for path in names]


def examined(subjects, kind=LOOK, effort=ONE):
    return dict(examine(kind, subjects, effort))


def test_what_is_known_is_not_looked_at_again(files):
    found = examined(files)
    assert found[2] is ABSENT
    assert [found[place].frames for place in (0, 1, 3, 4)] == [20] * 4
    assert examined(files, effort=NO_TIME) == found
    assert examined(files[::-1], effort=NO_TIME)[4] == found[0]


def test_another_file_stretch_or_kind_is_looked_at(files):
    examined(files)
    path = files[0].path
    os.utime(path, ns=(0, 0))
    with open(files[1].path, "ab") as file:
        file.write(b"more")
    stretch = Subject(files[3].path, 0.0, 0.4)
    lost = examined([*files[:2], stretch], effort=NO_TIME)
    assert all(isinstance(each, Lost) for each in lost.values())
    assert examined([stretch])[0].frames == 10
    assert examined([stretch], effort=NO_TIME)[0].frames == 10
    assert isinstance(examined(files, DIGEST, NO_TIME)[4], Lost)


def test_what_could_not_be_found_out_is_tried_again(files):
    assert isinstance(examined(files, effort=NO_TIME)[0], Lost)
    assert examined(files)[0].frames == 20


def test_a_reason_is_kept(files):
    with open(files[0].path, "wb") as file:
        file.write(b"no video" * 9)
    fault = examined(files)[0].fault
    assert fault
    assert examined(files, effort=NO_TIME)[0].fault == fault


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_keeps_what_it_has(files, number):
    before = signal.getsignal(number)
    seen = {}

    def watch():
        for place, found in examine(LOOK, files, ONE):
            seen[place] = found
            if found is not ABSENT:
                signal.raise_signal(number)

    with pytest.raises(Interrupted, match=f"{number.name}.*same command") as caught:
        watch()
    assert caught.value.exit_code == 130
    assert len(seen) == 2  # the absent one, and one more
    assert signal.getsignal(number) is before
    again = examined(files, effort=NO_TIME)
    assert [place for place, found in again.items() if not isinstance(found, Lost)] == [
        max(seen.keys() - {2})
    ]
    assert len(examined(files)) == 5


def test_a_store_that_cannot_be_used_is_named(files, tmp_path, monkeypatch):
    examined(files)
    store = Store()
    store.close()
    store.path.write_bytes(b"something else" * 1000)
    for side in ("-wal", "-shm"):
        store.path.with_name(store.path.name + side).unlink(missing_ok=True)
    with pytest.raises(EnvironmentError_, match=r"cannot be kept in .*Delete it"):
        examined(files)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentError_, match="cannot be kept"):
        examined(files)


def test_two_commands_may_share_it(files):
    examined(files[:1])
    first = Store()
    with sqlite3.connect(first.path) as other:
        other.execute("SELECT * FROM found").fetchone()
        assert len(examined(files)) == 5
    first.close()
    other.close()


def test_a_path_that_is_no_text(files, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.mp4"
    os.rename(files[0].path, path)
    subject = Subject(os.fsdecode(path))
    assert examined([subject])[0].frames == 20
    assert examined([subject], effort=NO_TIME)[0].frames == 20
