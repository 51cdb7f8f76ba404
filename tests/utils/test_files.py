from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from ccl_cli.errors import UsageError
from ccl_cli.utils import files
from ccl_cli.utils.files import atomic_folder, lock_file, write_text


def test_a_lock_is_held_by_one_until_it_is_closed(tmp_path):
    path = tmp_path / "new" / ".lock"
    with lock_file(path, "Taken.", "Wait."), pytest.raises(UsageError, match=r"Taken\. Wait\."):
        lock_file(path, "Taken.", "Wait.")
    lock_file(path, "Taken.", "Wait.").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_worked_on_with_a_warning(tmp_path, monkeypatch, caplog, number):
    def refuse(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("ccl_cli.utils.files._log.propagate", True)
    with caplog.at_level("WARNING", "ccl"), lock_file(tmp_path / ".lock", "Taken.", "Wait.") as file:
        assert not file.closed
    assert os.strerror(number) in caplog.text


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
    assert list((tmp_path / "new").iterdir()) == [path]


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"), atomic_folder(tmp_path):
        pass
    with pytest.raises(UsageError, match="is a file") as caught, atomic_folder(tmp_path / "mine.txt"):
        pass
    assert "remove" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


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


def test_what_another_machine_is_writing_is_left_alone(tmp_path, monkeypatch):
    """On a disk that both see: its processes are not among those that live here."""
    path, free = tmp_path / "new", 2**22 + 1  # no process has this number
    with monkeypatch.context() as there:
        there.setattr("os.getpid", lambda: free)
        there.setattr(files, "_host", lambda: "another", raising=False)
        theirs = files._temporary(path)
    theirs.write_text("half")
    write_text(path, "ours")
    assert {file.name for file in tmp_path.iterdir()} == {"new", theirs.name}


def test_processes_of_one_number_on_two_machines_write_to_two_files(tmp_path):
    script = """if True:
        import os, socket, sys
        os.getpid, socket.gethostname = lambda: 7, lambda: sys.argv[1]
        from pathlib import Path
        from ccl_cli.utils.files import atomic_path
        with atomic_path(Path("new")) as begun:
            print(begun)
            begun.touch()
    """
    command = [sys.executable, "-c", script]
    made = [subprocess.check_output([*command, host], cwd=tmp_path) for host in ("one", "other", "other")]
    assert len(set(made)) == 3  # a name may be given to two machines


def test_what_a_process_of_our_own_number_had_begun_is_removed(tmp_path, monkeypatch):
    """A container that is started again gives its processes the same numbers."""
    with monkeypatch.context() as before:
        before.setattr(files, "_START", "before", raising=False)
        files._temporary(tmp_path / "new").write_text("half")
    write_text(tmp_path / "new", "whole")
    assert [file.name for file in tmp_path.iterdir()] == ["new"]
