from __future__ import annotations

import os

import pytest

from ccl_cli.config.recipe import Executor
from ccl_cli.data.checks import findings
from ccl_cli.data.checks.findings import NO_FILE, Effort, examine
from ccl_cli.data.checks.inspect import Inspection, Subject, digest, inspect
from ccl_cli.data.checks.pool import Failure
from ccl_cli.errors import CclError
from ccl_cli.executors import blocks as executor_blocks
from ccl_cli.utils.signals import Stopped

EFFORT = Effort(1, 60.0)


@pytest.fixture
def files(clips_folder, tmp_path) -> list[Subject]:
    """Three videos, the first of a name that is no text, an absent one, and one that is no video."""
    names = [os.fsdecode(b"\xff.mp4"), "v1.mp4", "v2.mp4", "gone.mp4", "text.mp4"]
    paths = [tmp_path / name for name in names]
    for path, source in zip(paths[:3], sorted((clips_folder / "set").rglob("*.mp4")), strict=False):
        path.write_bytes(source.read_bytes())
    paths[4].write_bytes(b"no video" * 9)
    return [Subject(str(path)) for path in paths]


@pytest.fixture
def examined(monkeypatch):
    """The results of an examination, and the subjects that did not come from the store."""

    def run(subjects, work=inspect):
        fresh = []
        real = findings.run_each

        def run_each(jobs, *arguments, **options):
            fresh.extend(subject for _, subject in jobs)
            return real(jobs, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(findings, "run_each", run_each)
            return dict(examine(work, subjects, EFFORT)), fresh

    return run


def test_a_stored_result_is_used_again_unless_file_segment_or_kind_changed(files, examined):
    results, fresh = examined(files)
    assert results[3] is NO_FILE
    assert [Inspection(*results[index]).frames for index in (0, 1, 2)] == [20] * 3
    assert "not a complete media file" in Inspection(*results[4]).fault
    assert fresh == [files[index] for index in (0, 1, 2, 4)]
    assert examined(files) == (results, [])
    os.utime(files[0].path, ns=(0, 0))
    with open(files[1].path, "ab") as file:
        file.write(b"more")
    segment = Subject(files[2].path, 0.0, 0.4)
    results, fresh = examined([*files[:3], segment])
    assert fresh == [*files[:2], segment]
    assert Inspection(*results[3]).frames == 10
    assert examined(files[2:3], digest)[1] == files[2:3]


def test_a_failure_is_not_stored(files, examined, monkeypatch):
    monkeypatch.setattr(findings, "run_each", lambda jobs, *_, **__: ((job, Failure("hung")) for job in jobs))
    assert dict(examine(inspect, files[1:2], EFFORT)) == {0: Failure("hung")}
    monkeypatch.undo()
    assert examined(files[1:2])[1] == files[1:2]


def test_results_before_a_stop_are_stored_even_if_the_last_line_is_cut_off(files, examined):
    results = examine(inspect, files, EFFORT)
    for _ in range(4):
        next(results)
    with pytest.raises(Stopped):
        results.throw(Stopped(15))
    (store,) = findings.cache_dir().glob("findings-*")
    text = store.read_text()
    stored = text.count("\n")
    assert 3 <= stored <= 4
    store.write_text(text[:-9])
    results, fresh = examined(files)
    assert (len(results), len(fresh)) == (5, 4 - (stored - 1))


def test_a_cluster_finds_what_one_machine_finds(files, slurm, monkeypatch, tmp_path):
    here = dict(examine(inspect, files, EFFORT))
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(findings, "BLOCK", 2)
    cluster = EFFORT._replace(executor=Executor(name="slurm", tasks=2, poll=0.2))
    assert dict(examine(inspect, files, cluster)) == here
    assert not list((tmp_path / "elsewhere" / "blocks").iterdir())
    assert dict(examine(inspect, files, cluster)) == here  # from the store
    assert len(list((slurm / "jobs").iterdir())) == 1


def test_blocks_that_were_not_examined_are_an_error(files, monkeypatch):
    monkeypatch.setattr(
        executor_blocks, "map_items", lambda work, *_: dict.fromkeys(work.items, "its node burned down")
    )
    with pytest.raises(CclError, match=r"1 of 1 blocks failed, .*: its node burned down"):
        dict(examine(inspect, files, EFFORT._replace(executor=Executor(name="slurm"))))
