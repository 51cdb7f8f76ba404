from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from ccl_cli.data.checks.pool import run_each
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
    reasons = {name: results.pop((name, place)).reason for name, place in jobs if name != "ok"}
    assert reasons == {
        "crash": "the process that read it ended (SIGSEGV)",
        "exit": "the process that read it ended (exit code 3)",
        "hang": "it was not read within 2 s",
        "raise": "The disk refuses",
        "bug": "ValueError('no')",
    }
    assert results == {("ok", number): number**2 for name, number in jobs if name == "ok"}


def test_jobs_are_taken_as_they_are_needed_and_a_consumer_that_leaves_ends_the_processes():
    taken = (("pid", number) if number < 5 else ("hang", number) for number in count())
    results = run_each(taken, work, workers=1, timeout=60)
    _, pid = next(results)
    results.close()
    assert next(taken)[1] < 5
    assert _ends(pid)


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


def test_no_process_outlives_a_kill():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.data.checks.test_pool import run_each, work\n"
        "for job, result in run_each([('pid', 0), ('hang', 1)], work, workers=1, timeout=600):\n"
        "    print(result, flush=True)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True) as process:
        worker = int(process.stdout.readline())
        process.kill()
    assert isinstance(worker, int)
    assert _ends(worker)
