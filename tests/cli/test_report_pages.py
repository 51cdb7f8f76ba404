from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ccl_cli.report.figures import FIGURES
from ccl_cli.report.page import SECTIONS
from tests.report.pages import write_study

BENCH = Path("runs/b")


@pytest.fixture
def bench(clips_folder):
    return write_study(BENCH, clips_folder)


def test_a_page(ccl, bench):
    result = ccl("report", "html", str(bench), "--output", "new/page.html")
    assert (result.code, result.out) == (0, "")
    assert "Written to new/page.html." in result.err
    text = Path("new/page.html").read_text()
    assert all(f'id="{section.key}"' in text for section in SECTIONS)
    assert [path.name for path in Path("new").iterdir()] == ["page.html"]


def test_the_newest_folder_and_the_usual_name(ccl, bench):
    assert ccl("report", "html").code == 0
    assert "ccl on clips" in Path("report.html").read_text()
    assert ccl("-q", "report", "figure", "curves").err == ""
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["html", "absent"], 4, "There is no folder 'absent'."),
        (["html", "--output", "runs"], 2, "'runs' is a folder."),
        (["figure", "pie"], 2, "pie"),
        (["figure", "tsne", "--output", "runs"], 2, "'runs' is a folder."),
        (["figure", "tsne", "--output", "x.jpg"], 2, "Let it end in .png, .svg or .pdf."),
        (["figure", "curves", "--split", "val"], 4, "No evaluated run"),
    ],
)
def test_errors(ccl, bench, words, code, said):
    before = set(Path().iterdir())
    result = ccl("report", *words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert set(Path().iterdir()) == before


def test_help_names_every_figure(ccl):
    out = ccl("report", "figure", "--help").out
    assert all(name in out for name in FIGURES)


def test_pictures_of_records_import_no_torch(bench):
    code = (
        "import sys\nfrom ccl_cli.__main__ import main\n"
        "assert [main(['-q', 'report', 'figure', name, '--output', f'{name}.svg'])"
        " for name in ('overview', 'curves', 'classes')] == [0, 0, 0]\n"
        "print(*({'torch', 'sklearn', 'av', 'accelerate'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert Path("curves.svg").stat().st_size > 1000
