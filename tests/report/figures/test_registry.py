from __future__ import annotations

import struct
import xml.etree.ElementTree as ET

import pytest
from matplotlib.figure import Figure
from PIL import Image

from ccl_cli.errors import UsageError
from ccl_cli.report.figures.registry import FIGURES, figure, write_figure
from ccl_cli.report.records.results import load_results


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_picture_with_colours(study_runs, tmp_path, name):
    write_figure(load_results([study_runs]), name, tmp_path / "f.png")
    assert len(Image.open(tmp_path / "f.png").getcolors(10**7)) > 5


def test_figures_are_real_files(study_runs, tmp_path):
    results = load_results([study_runs])
    for suffix in ("svg", "PNG", "pdf"):
        write_figure(results, "curves", tmp_path / f"f.{suffix}")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    root = ET.parse(tmp_path / "f.svg").getroot()
    # Two pixels of the PNG stand for one of the SVG.
    width, height = struct.unpack(">II", (tmp_path / "f.PNG").read_bytes()[16:24])
    size = 2 * float(root.get("width")), 2 * float(root.get("height"))
    assert (width, height) == pytest.approx(size, abs=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.PNG", "f.pdf", "f.svg"]
    with pytest.raises(UsageError, match="is no PNG, SVG or PDF file"):
        write_figure(results, "curves", tmp_path / "f.jpg")


def test_a_figure_is_matplotlibs(study_runs):
    drawn = figure("curves", study_runs)
    assert isinstance(drawn, Figure)
    assert drawn.subfigs
    with pytest.raises(UsageError, match="no figure 'curve'"):
        figure("curve", study_runs)
