from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ccl_cli.report.records.results import load_results
from ccl_cli.report.tables.build import tables
from ccl_cli.report.tables.latex import latex_tables
from ccl_cli.report.tables.markdown import markdown_tables
from ccl_cli.report.tables.terminal import terminal_tables
from tests.report.folders import write_run


def well_formed(text: str) -> None:
    """Braces and environments are closed, and every line of a tabular fills its columns."""
    bare = re.sub(r"(?<!\\)%.*|\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for kind in ("begin", "end"):
        assert len(re.findall(rf"\\{kind}{{tabular}}", text)) == len(re.findall(r"\\label{", text))
    for spec, body in re.findall(r"\\begin{tabular}{(.*?)}\n(.*?)\\end{tabular}", text, re.S):
        width = len(spec.replace(" ", ""))
        for line in body.splitlines():
            if line.endswith(r"\\"):
                spans = [int(n) for n in re.findall(r"\\multicolumn{(\d+)}", line)]
                assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans) == width, line


@pytest.mark.parametrize("printed", [False, True])
def test_latex(bench, printed):
    text = latex_tables(tables(bench[1], printed=printed), bench[1])
    well_formed(text)
    theirs = " & 64.9" if printed else ""
    assert rf"CCL & \textbf{{64.5}} $\pm$ 0.5{theirs} & \textbf{{66.0}}" in text
    assert r"COR & 61.2 $\pm$ 0.4 (n=2)" in text
    assert r"(b) & CCL w $\mathcal{L}_{ct}$ & 61.2" in text
    assert rf"\multicolumn{{{6 if printed else 3}}}{{c}}{{AI}}" in text
    assert text.count(r"\begin{table*}") == text.count(r"\resizebox{\textwidth}") == 1  # table 2
    assert "% Failed (The loss is not finite): cckd A seed 2" in text


def test_hostile_labels_stay_text():
    label = r"50%_a&b#$^~\{x}|<i>[red]*y*`z`"
    for other in (label, "ccl"):
        write_run(folder := Path("runs/x") / f"r{len(other)}", setup="A", top1=50.0)
        cell = {"method": other, "setup": "A", "seed": 0, "table": "main", "phase": "final"}
        (folder / "cell.json").write_text(json.dumps(cell))
    results = load_results()
    tex = latex_tables(tables(results), results)
    well_formed(tex)
    assert (
        r"50\%\_a\&b\#\$\textasciicircum{}\textasciitilde{}\textbackslash{}\{x\}$|$$<$i$>$[red]*y*`z`" in tex
    )
    shown = [
        line for line in markdown_tables(tables(results), results).splitlines() if line.startswith("| 50")
    ]
    assert shown == [r"| 50%\_a&b#$^~\\{x}\|\<i\>\[red\]\*y\*\`z\` | **50.0** |"]
    assert label in terminal_tables(tables(results), results, plain=False)
