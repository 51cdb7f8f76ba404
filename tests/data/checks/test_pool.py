from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ccl_cli.data.checks.pool import Failure, run_each
from ccl_cli.errors import DataError, SystemSetupError


def work(job: tuple[str, int]) -> int:
    name, number = job
    if name in ("crash", "exit"):
        time.sleep(0.2)  # as decoders do, it dies some time after it has taken the job
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "exit":
        os._exit(3)
    if name == "hang":
        time.sleep(600)
    if name == "raise":
        raise DataError("The disk refuses.")
    if name == "bug":
        raise ValueError("no")
    if name == "pid":
        return os.getpid()
    return number**2


class DiesAtTheStart:
    """Cannot even be unpickled in the process that is to use it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_only_the_job_that_breaks_its_process_fails():
    jobs = [("ok", number) for number in range(30)]
    for place, name in (3, "crash"), (9, "exit"), (12, "hang"), (20, "raise"), (25, "bug"):
        jobs[place] = (name, place)
    results = dict(run_each(jobs, work, workers=2, timeout=2.0))
    assert {job[0]: result.reason for job, result in results.items() if isinstance(result, Failure)} == {
        "crash": "the process that read it ended (SIGSEGV)",
        "exit": "the process that read it ended (exit code 3)",
        "hang": "it was not read within 2 s",
        "raise": "The disk refuses",
        "bug": "ValueError: no",
    }
    numbers = {number: result for (name, number), result in results.items() if name == "ok"}
    assert numbers == {number: number**2 for number in range(30) if number not in (3, 9, 12, 20, 25)}


def test_jobs_are_taken_as_they_are_needed_until_it_is_stopped():
    taken, results = [], []

    def jobs():
        for number in range(1000):
            taken.append(number)
            yield ("ok", number)

    for result in run_each(jobs(), work, workers=2, timeout=60, stopped=lambda: len(results) >= 5):
        results.append(result)
    assert 5 <= len(results) < 12
    assert len(taken) < 16


def test_processes_that_cannot_start_are_no_failed_jobs():
    with pytest.raises(SystemSetupError, match="cannot start"):
        list(run_each([1], DiesAtTheStart(), workers=1, timeout=60))


def _ends(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_consumer_that_leaves_ends_a_process_that_hangs():
    with closing(run_each([("pid", 0), ("hang", 1)], work, workers=1, timeout=60)) as results:
        _, pid = next(results)
    assert _ends(pid)


def test_no_process_outlives_a_kill(tmp_path):
    script = tmp_path / "s.py"
    script.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "from tests.data.checks.test_pool import work\n"
        "from ccl_cli.data.checks.pool import run_each\n"
        "if __name__ == '__main__':\n"
        "    for job, result in run_each([('pid', 0), ('hang', 1)], work, workers=1, timeout=600):\n"
        "        print(result, flush=True)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen([sys.executable, str(script), root], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    assert _ends(worker)
