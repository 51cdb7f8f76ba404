"""The notebook, run from its first cell to its last in an empty folder."""

from __future__ import annotations

import nbformat
import pytest

from tests.docs.pages import DOCS

NOTEBOOK = DOCS / "tutorials" / "first_distillation.ipynb"
FEW = "clips=10&val_clips=0&test_clips=2"
# Fewer clips, one seed and five epochs in place of two and eighty; the rest is as it stands.
SHORTER = {
    'load_data("synthetic")': f'load_data("synthetic?{FEW}")',
    'labels=objects"': f'labels=objects&{FEW}"',
    'labels=sounds"': f'labels=sounds&{FEW}"',
    'load_recipe("synthetic")': f'load_recipe("synthetic", {{"data": "synthetic?{FEW}"}})',
    '"train.seed": seed': f'"train.seed": seed, "train.epochs": 5, "data": "synthetic?{FEW}"',
    "for seed in (0, 1):": "for seed in (0,):",
    "[::120]": "[::6]",
}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_pictures(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("CCL_HOME", str(tmp_path / "cache"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for long, short in SHORTER.items():
            cell.source = cell.source.replace(long, short)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in data for data in shown) == 3
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_the_outputs_are_those_of_its_cells_in_order():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
