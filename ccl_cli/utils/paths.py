"""Where ccl keeps its files: cache, data and runs, each with one environment variable to move it."""

from __future__ import annotations

import os
from pathlib import Path


def _from_env(variable: str) -> Path | None:
    """The folder named by an environment variable; an empty value counts as unset."""
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def cache_dir() -> Path:
    """Weights and indexes: ``$CCL_HOME``, else ``$XDG_CACHE_HOME/ccl``, else ``~/.cache/ccl``."""
    return _from_env("CCL_HOME") or (_from_env("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccl"


def data_dir() -> Path:
    """Datasets: ``$CCL_DATA``, else ``data`` in the current folder."""
    return _from_env("CCL_DATA") or Path("data")


def runs_dir() -> Path:
    """Training runs: ``$CCL_RUNS``, else ``runs`` in the current folder."""
    return _from_env("CCL_RUNS") or Path("runs")
