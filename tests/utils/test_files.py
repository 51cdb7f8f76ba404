from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from ccl_cli.errors import UsageError
from ccl_cli.utils.files import atomic_folder, lock_file, temporary_name, write_text


def test_a_lock_is_held_by_one_until_it_is_closed(tmp_path):
    path = tmp_path / "new" / ".lock"
    with lock_file(path, "Taken.", "Wait."), pytest.raises(UsageError, match=r"Taken\. Wait\."):
        lock_file(path, "Taken.", "Wait.")
    lock_file(path, "Taken.", "Wait.").close()


def test_a_file_system_without_locks_is_worked_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level("WARNING", "ccl"), lock_file(tmp_path / ".lock", "Taken.", "Wait.") as file:
        assert not file.closed
    assert "No locks" in caplog.text


def test_a_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "out"

    def stopped():
        with atomic_folder(path) as folder:
            (folder / "half.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list((tmp_path / "new").iterdir()) == []
    path.mkdir()  # an empty one is nobody's
    with atomic_folder(path) as folder:
        (folder / "whole.txt").write_text("whole")
        assert list(path.iterdir()) == []
    assert [file.name for file in path.iterdir()] == ["whole.txt"]
    with pytest.raises(UsageError, match="is not empty"), atomic_folder(path):
        pass
    with pytest.raises(UsageError, match="is a file"), atomic_folder(path / "whole.txt"):
        pass
    assert list((tmp_path / "new").iterdir()) == [path]


WRITER = """if True:
    import sys
    from pathlib import Path
    from ccl_cli.utils.files import atomic_folder, atomic_path
    with {kind}(Path(sys.argv[1])) as begun:
        {write}
        print(begun, flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("kind", "write"),
    [("atomic_path", "begun.write_text('half')"), ("atomic_folder", "(begun / 'x').write_text('half')")],
)
def test_what_a_killed_process_had_begun_is_removed_by_who_writes_it_next(tmp_path, kind, write):
    def begin(name):
        command = [sys.executable, "-c", WRITER.format(kind=kind, write=write), str(tmp_path / name)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return process, process.stdout.readline().strip()

    (killed, begun), (other, of_another), (alive, being_written) = map(begin, ("new", "newer", "new"))
    for process in killed, other:
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked
    write_text(tmp_path / "new", "whole")
    assert {str(path) for path in tmp_path.iterdir()} == {str(tmp_path / "new"), of_another, being_written}
    assert begun not in (of_another, being_written)
    alive.kill()
    for process in killed, other, alive:
        process.communicate()


@pytest.mark.parametrize(
    ("host", "pid", "stays"), [(None, os.getpid(), False), ("another", 2**22 + 1, True)], ids=["own", "other"]
)
def test_only_files_of_this_machine_are_known_to_be_left_over(tmp_path, monkeypatch, host, pid, stays):
    """A restarted container gives its processes the same ids; another machine's processes are not seen here."""
    with monkeypatch.context() as before:
        before.setattr(os, "getpid", lambda: pid)
        before.setattr(socket, "gethostname", lambda: host or "here")
        left = tmp_path / temporary_name("new")
    left.mkdir()
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    with atomic_folder(tmp_path / "new"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"new", *([left.name] if stays else [])}
