from __future__ import annotations

import errno
import fcntl
import os

import pytest

from ccl_cli.errors import UsageError
from ccl_cli.files import hold


def test_a_lock_is_held_by_one_until_it_is_closed(tmp_path):
    path = tmp_path / "new" / ".lock"
    with hold(path, "Taken.", "Wait."), pytest.raises(UsageError, match=r"Taken\. Wait\."):
        hold(path, "Taken.", "Wait.")
    hold(path, "Taken.", "Wait.").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_worked_on_with_a_warning(tmp_path, monkeypatch, caplog, number):
    def refuse(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("ccl_cli.files._log.propagate", True)
    with caplog.at_level("WARNING", "ccl"), hold(tmp_path / ".lock", "Taken.", "Wait.") as file:
        assert not file.closed
    assert os.strerror(number) in caplog.text
