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
print(json.dumps([min(separate), [faults() for _ in range(6)][-1]]))  # the heap grows in the first rounds
"""


@pytest.mark.parametrize(
    "chosen",
    [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}],
)
def test_blocks_are_kept_unless_the_user_has_chosen(chosen):
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC"))
    }
    environment = {**inherited, "NUMPY_MADVISE_HUGEPAGE": "0", **chosen}  # a huge page counts as one
    done = subprocess.check_output([sys.executable, "-c", PROGRAM], env=environment, text=True)
    separate, kept = (count * 4096 / 240e6 for count in json.loads(done))
    assert separate > 0.8
    assert kept > 0.8 if chosen else kept < 0.2
