"""A ``ccl`` that starts at once: a server has imported everything, and each command is a process forked from it.

The command gets the caller's arguments, folder, environment and streams, and leaves its own exit code. Servers of
processes that read videos are forked from it too; other processes that it starts are ordinary ones.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path

_PR_SET_PDEATHSIG = 1
FIRST = "CCL_FIRST"  # in the environment of a command: Python that its process runs before
_CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [request.encode()], [0, 1, 2])
    answer = server.recv(8)
sys.exit(int(answer) if answer else 99)
"""


@contextmanager
def warm_ccl(folder: Path) -> Iterator[Path]:
    """Yields a folder with the program ``ccl`` in it."""
    place, programs = folder / "server", folder / "bin"
    programs.mkdir(parents=True)
    client = programs / "ccl"
    client.write_text(_CLIENT.format(python=sys.executable, place=str(place)))
    client.chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([sys.executable, __file__, str(place)], stdout=subprocess.PIPE, env=environment)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield programs
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def _serve(place: str) -> None:
    if sys.platform == "linux":  # not to outlive tests that are killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    import ccl_cli.bench.preload
    import ccl_cli.report.page.page  # noqa: F401

    for number in (signal.SIGTERM, signal.SIGUSR1):  # the preload ignores them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                _command(connection)
            connection.close()


def _command(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    util.spawnv_passfds = fork_instead
    resource_tracker._resource_tracker.__init__()  # one of its own
    request, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    code = 99
    try:
        code = _run(*json.loads(request))
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        connection.send(str(code).encode())
        os._exit(0)


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    from ccl_cli.__main__ import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    exec(os.environ.pop(FIRST, ""), {})
    sys.argv = ["ccl", *arguments]
    return main(arguments)


def fork_instead(path: str, arguments: Sequence[str], passed: Sequence[int]) -> int:
    """As ``spawnv_passfds``, for ``python -c CODE``: from here, where everything is imported."""
    code = arguments[list(arguments).index("-c") + 1]
    pid = os.fork()
    if pid:
        return pid
    try:
        kept = {0, 1, 2, *map(int, passed)}
        for number in map(int, os.listdir("/proc/self/fd")):
            if number not in kept:
                with suppress(OSError):
                    os.close(number)
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        forkserver._forkserver.__init__()
        resource_tracker._resource_tracker.__init__()
        exec(code, {"__name__": "__main__"})
    except SystemExit:
        pass
    finally:
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
