from __future__ import annotations

from pathlib import Path

import pytest

from ccl_cli.report.records.results import load_results
from ccl_cli.report.tables.build import tables
from tests.report.folders import write_bench


@pytest.fixture
def bench():
    """The tables of a benchmark, and its results."""
    results = load_results([write_bench(Path("runs/b"))])
    return tables(results), results
