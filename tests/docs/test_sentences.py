"""What the pages quote is what ccl prints, and the extras that they list are those of the package."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, blocks

PAGE = DOCS / "trouble.md"
QUOTED = [line for block in blocks(PAGE) for line in block.text.splitlines() if line.startswith("Error: ")]


def templates(path: Path) -> set[str]:
    """Every text in a module, with … for what is filled in."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            found.add("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return {re.sub("…+", "…", text) for text in found}


@pytest.fixture(scope="module")
def sentences() -> set[str]:
    paths = [*(ROOT / "ccl_cli").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    return set().union(*map(templates, paths))


@pytest.mark.parametrize("line", QUOTED)
def test_ccl_says_so(line, sentences):
    assert line.removeprefix("Error: ") in sentences


def test_there_is_something_to_check():
    assert len(QUOTED) > 15


def test_the_table_of_extras_is_complete(sentences):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = list(project["optional-dependencies"])
    table = (DOCS / "start.md").read_text(encoding="utf-8").partition("| extra |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == sorted(extras)
    texts = " ".join([*sentences, *(page.read_text(encoding="utf-8") for page in PAGES)])
    assert set(re.findall(rf"{project['name']}\[(\w+)\]", texts)) <= set(extras)


RECORDS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
MEASURED = {
    line
    for page in (*PAGES, *RECORDS, *(ROOT / "plugins").glob("*/README.md"))
    for line in re.findall(r"python benchmarks/[^`\n]+", page.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("line", sorted(MEASURED))
def test_a_benchmark_that_a_page_names_is_there_with_its_options(line):
    _, script, *words = line.partition("#")[0].split()
    sources = [(ROOT / script).read_text(), (ROOT / "benchmarks" / "measuring.py").read_text()]
    for word in words:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--"):
            assert any(re.search(rf"\b{name}=|\"{name}\"", source) for source in sources), word
