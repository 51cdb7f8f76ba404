from __future__ import annotations

import shutil

import pytest

from ccl_cli.report.page.page import page
from ccl_cli.report.records.results import load_results
from tests.report.pages import write_study


@pytest.fixture(scope="session")
def study_runs(clips_folder, tmp_path_factory):
    """Runs with all that a page shows, and what a page leaves beside them."""
    runs = write_study(tmp_path_factory.mktemp("report") / "r", clips_folder)
    page(load_results([runs]))
    return runs


@pytest.fixture
def copied(study_runs, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(study_runs, tmp_path / "r")
