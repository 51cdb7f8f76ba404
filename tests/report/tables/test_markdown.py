from __future__ import annotations

import re

from ccl_cli.report.tables.markdown import markdown_tables


def test_markdown(bench):
    text = markdown_tables(*bench)
    assert "| method | A | I | AI |\n| --- | ---: | ---: | ---: |\n| baseline | 58.0 ± 1.0 |" in text
    assert "| ccl | **64.5** ± 0.5 | **66.0** ± 0.5 | **67.5** ± 0.5 |" in text
    assert "| (b) ccl w L\\_ct | 61.2" in text
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in lines.splitlines()}) == 1
    assert "- Failed (The loss is not finite): cckd A seed 2" in text
