"""Folders for cache, data and runs, each configurable with an environment variable."""

from __future__ import annotations

import os
from pathlib import Path


def _from_env(variable: str) -> Path | None:
    """Return the folder in an environment variable; an empty value counts as unset."""
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def cache_dir() -> Path:
    """Folder of weights and caches: ``$CCL_HOME``, else ``$XDG_CACHE_HOME/ccl``, else ``~/.cache/ccl``."""
    return _from_env("CCL_HOME") or (_from_env("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccl"


def data_dir() -> Path:
    """Folder of data sets: ``$CCL_DATA``, else ``data`` in the working directory."""
    return _from_env("CCL_DATA") or Path("data")


def runs_dir() -> Path:
    """Folder of runs: ``$CCL_RUNS``, else ``runs`` in the working directory."""
    return _from_env("CCL_RUNS") or Path("runs")
