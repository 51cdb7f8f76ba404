from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ccl_cli.data.checks.crash_proof import Lost, run_each
from ccl_cli.errors import DataError, EnvironmentError_


def work(job: tuple[str, int]) -> int:
    what, number = job
    if what.startswith("once ") and not os.path.exists(what[5:]):
        open(what[5:], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "leave":
        os._exit(3)
    if what == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        time.sleep(600)
    if what == "raise":
        raise DataError("The disk refuses.")
    if what == "bug":
        raise ValueError("no")
    if what == "slow":
        time.sleep(0.2)
    return number**2


class DiesAtTheStart:
    """Cannot even be unpickled in the process that is to use it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_only_the_job_that_breaks_its_process_is_lost(workers):
    jobs = [("ok", number) for number in range(30)]
    for place, what in (3, "crash"), (4, "crash"), (9, "leave"), (12, "hang"), (20, "raise"), (25, "bug"):
        jobs[place] = (what, place)
    results = dict(run_each(jobs, work, workers=workers, seconds=2.0))
    assert len(results) == len(jobs)
    lost = {job[0]: result.reason for job, result in results.items() if isinstance(result, Lost)}
    assert lost == {
        "crash": "the process that read it ended (SIGSEGV)",
        "leave": "the process that read it ended (exit code 3)",
        "hang": "it was not read within 2 s",
        "raise": "The disk refuses",
        "bug": "ValueError: no",
    }
    for (what, number), result in results.items():
        assert what != "ok" or result == number**2


def test_a_job_whose_process_is_killed_once_is_done_by_another(tmp_path):
    jobs = [(f"once {tmp_path}/{number}", number) for number in range(3)]
    assert {job[1]: result for job, result in run_each(jobs, work, workers=2, seconds=60)} == {
        0: 0,
        1: 1,
        2: 4,
    }
    assert len(list(tmp_path.iterdir())) == 3


def test_jobs_are_taken_as_they_are_needed():
    taken = []

    def jobs():
        for number in range(1000):
            taken.append(number)
            yield ("ok", number)

    with closing(run_each(jobs(), work, workers=2, seconds=60)) as results:
        for _ in range(5):
            next(results)
    assert len(taken) < 12


def test_it_leaves_off_when_it_is_told_to():
    done = []
    for job, _ in run_each(
        [("slow", n) for n in range(100)], work, workers=1, seconds=60, stopped=lambda: len(done) >= 2
    ):
        done.append(job)
    assert len(done) == 2


def test_processes_that_cannot_start_are_no_jobs_lost():
    with pytest.raises(EnvironmentError_, match="cannot start"):
        list(run_each([1], DiesAtTheStart(), workers=1, seconds=60))


def test_no_process_outlives_a_kill(tmp_path):
    script = tmp_path / "s.py"
    script.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "from tests.data.checks.test_crash_proof import work\n"
        "from ccl_cli.data.checks.crash_proof import run_each\n"
        "if __name__ == '__main__':\n"
        "    jobs = [('pid', 0), ('hang', 1)]\n"
        "    for job, result in run_each(jobs, pid_or_work, workers=2, seconds=600): print(result, flush=True)\n".replace(
            "pid_or_work", "work_pid"
        ).replace("import work\n", "import work_pid\n")
    )
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen([sys.executable, str(script), root], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there")


def work_pid(job: tuple[str, int]) -> int:
    """The number of the process."""
    return os.getpid() if job[0] == "pid" else work(job)
