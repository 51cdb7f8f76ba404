"""Memory kept between a CPU's training steps: measured in processes of their own, since it is theirs for good."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="Only glibc keeps blocks on request.",
)

# The same blocks again and again, 240 MB in all; how many pages the system had to hand out each time.
PROGRAM = """
import json, resource
import numpy
from ccl_cli.training.compute.allocator import keep_blocks, separate_blocks

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [numpy.ones(1_000_000) for _ in range(30)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

separate_blocks()
separate = [faults(), faults()]
keep_blocks()
print(json.dumps({"separate": separate, "kept": [faults() for _ in range(6)]}))
"""
PAGES = 240_000_000 // 4096


def pages(**environment: str) -> dict[str, list[int]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    inherited.pop("GLIBC_TUNABLES", None)
    inherited["NUMPY_MADVISE_HUGEPAGE"] = "0"  # a huge page counts as one
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    counted: dict[str, list[int]] = json.loads(done.stdout)
    return counted


def test_blocks_are_the_systems_at_first_and_kept_later() -> None:
    counted = pages()
    assert min(counted["separate"]) > 0.8 * PAGES
    assert counted["kept"][-1] < 0.2 * PAGES  # it takes some rounds until the heap has room for all


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}],
)
def test_what_the_user_has_chosen_stays(environment: dict[str, str]) -> None:
    assert pages(**environment)["kept"][-1] > 0.8 * PAGES
