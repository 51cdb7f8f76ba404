"""Imported by the server that workers are forked from, and by nothing else: what the workers need, at once.

A scheduler's signal reaches the whole process group. The server ignores it as its workers do: the training
process decides when to stop, and the server ends with it.
"""

import signal

import ccl_cli.data.dataset
import ccl_cli.data.windows  # noqa: F401

for _number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(_number, signal.SIG_IGN)
