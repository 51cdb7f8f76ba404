from __future__ import annotations

import signal

from ccl_cli.data.clips.workers import SERVER


def deaf(listens):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listens.send(None)
    signal.pause()


def test_a_process_that_is_left_when_python_exits_is_not_waited_for():
    """Python ends it with ``terminate``, to whose signal it is deaf."""
    here, there = SERVER.Pipe()
    process = SERVER.Process(target=deaf, args=(there,), daemon=True)
    process.start()
    here.recv()
    process.terminate()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
