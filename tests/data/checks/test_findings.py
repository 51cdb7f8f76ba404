from __future__ import annotations

import os
import signal

import pytest

from ccl_cli.config.recipe import Executor
from ccl_cli.data.checks import blocks, findings
from ccl_cli.data.checks.findings import ABSENT, Effort, examine
from ccl_cli.data.checks.inspect import Inspection, Subject, digest, inspect
from ccl_cli.data.checks.pool import Failure
from ccl_cli.errors import CclError, Interrupted, SystemSetupError
from ccl_cli.executors import blocks as executor_blocks

EFFORT = Effort(1, 60.0)


@pytest.fixture
def files(clips_folder, tmp_path) -> list[Subject]:
    """Four videos, the first of a name that is no text, and an absent one."""
    names = [os.fsdecode(b"\xff.mp4"), *(f"v{number}.mp4" for number in range(1, 5))]
    paths = [tmp_path / name for name in names]
    for path, source in zip(paths, sorted((clips_folder / "set").rglob("*.mp4")), strict=False):
        path.write_bytes(source.read_bytes())
    paths[2].unlink()
    return [Subject(str(path)) for path in paths]


@pytest.fixture
def examined(monkeypatch):
    """The results of an examination, and the subjects that did not come from the store."""

    def run(subjects, work=inspect):
        fresh = []
        real = findings.run_each

        def run_each(jobs, *arguments, **options):
            jobs = list(jobs)
            fresh.extend(subject for _, subject in jobs)
            return real(jobs, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(findings, "run_each", run_each)
            return dict(examine(work, subjects, EFFORT)), fresh

    return run


def test_a_stored_result_is_used_again(files, examined):
    results, fresh = examined(files)
    assert results[2] is ABSENT
    assert [Inspection(*results[index]).frames for index in (0, 1, 3, 4)] == [20] * 4
    assert fresh == [files[index] for index in (0, 1, 3, 4)]
    assert examined(files) == (results, [])


def test_another_file_stretch_or_kind_is_examined(files, examined):
    examined(files)
    os.utime(files[0].path, ns=(0, 0))
    with open(files[1].path, "ab") as file:
        file.write(b"more")
    stretch = Subject(files[3].path, 0.0, 0.4)
    results, fresh = examined([*files[:2], stretch])
    assert fresh == [*files[:2], stretch]
    assert Inspection(*results[2]).frames == 10
    assert examined(files[4:], digest)[1] == files[4:]


def test_a_fault_is_stored_and_a_failure_is_not(files, examined, monkeypatch):
    with open(files[0].path, "wb") as file:
        file.write(b"no video" * 9)
    assert "not a complete media file" in examined(files[:1])[0][0][0]
    assert examined(files[:1])[1] == []
    monkeypatch.setattr(findings, "run_each", lambda jobs, *_, **__: ((job, Failure("hung")) for job in jobs))
    assert dict(examine(inspect, files[1:2], EFFORT)) == {0: Failure("hung")}
    monkeypatch.undo()
    assert examined(files[1:2])[1] == files[1:2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_results_before_a_signal_are_stored(files, examined, number):
    before = signal.getsignal(number)
    results = {}

    def interrupt():
        for index, result in examine(inspect, files, EFFORT):
            results[index] = result
            if result is not ABSENT:
                signal.raise_signal(number)

    with pytest.raises(Interrupted, match=f"{number.name}.*same command") as caught:
        interrupt()
    assert caught.value.exit_code == 130
    assert signal.getsignal(number) is before
    all_results, fresh = examined(files)
    assert len(all_results) == 5
    assert len(fresh) == len(files) - len(results)


def test_a_store_that_cannot_be_used_is_named(files, examined, tmp_path, monkeypatch):
    examined(files)
    (store,) = findings.cache_dir().glob("findings-*.sqlite")
    store.write_bytes(b"something else" * 1000)
    with pytest.raises(SystemSetupError, match=r"cannot be stored in .*Delete it"):
        examined(files)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "file"))
    with pytest.raises(SystemSetupError, match="cannot be stored"):
        examined(files)


def test_a_cluster_finds_what_one_machine_finds(files, slurm, monkeypatch, tmp_path):
    with open(files[1].path, "wb") as file:
        file.write(b"no video" * 9)
    here = dict(examine(inspect, files, EFFORT))
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(blocks, "BLOCK", 2)
    cluster = EFFORT._replace(executor=Executor(name="slurm", tasks=2, poll=0.2))
    assert dict(examine(inspect, files, cluster)) == here
    assert not list((tmp_path / "elsewhere" / "blocks").iterdir())
    assert dict(examine(inspect, files, cluster)) == here  # from the store
    assert len(list((slurm / "jobs").iterdir())) == 1


def test_blocks_that_were_not_examined_are_an_error(files, monkeypatch):
    monkeypatch.setattr(
        executor_blocks, "map_items", lambda work, *_: dict.fromkeys(work.items, "its node burned down")
    )
    with pytest.raises(CclError, match=r"check: 1 of 1 blocks failed, .*: its node burned down"):
        dict(examine(inspect, files, EFFORT._replace(executor=Executor(name="slurm"))))
