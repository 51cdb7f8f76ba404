"""The pages hang together: links and pictures exist, every page is in the navigation, and the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer

from ccl_cli.cli.app import OWN, app
from ccl_cli.config.recipe import Recipe
from tests.docs.pages import DOCS, PAGES, ROOT, name
from tests.docs.test_commands import read

CONFIG = ROOT / "mkdocs.yml"
GENERATED = {"commands.md", "keys.md"}  # by docs/_site/reference.py
_TARGET = re.compile(r"""\]\(([^)\s]+)\)|(?:src|href)="([^"]+)\"""")


def targets(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = ["".join(pair) for pair in _TARGET.findall(re.sub(r"`[^`]*`", "", text))]
    return [target for target in found if not urlsplit(target).scheme]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_lead_somewhere(page):
    missing = [
        target
        for target in targets(page)
        if (path := target.partition("#")[0]) and path not in GENERATED and not (page.parent / path).exists()
    ]
    assert missing == []


# ---- pages that the program writes


@pytest.fixture(scope="module")
def reference():
    spec = util.spec_from_file_location("reference", DOCS / "_site" / "reference.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_is_in_the_reference(reference):
    page = reference.commands()
    headings = re.findall(r"^##+ (ccl .+)$", page, flags=re.MULTILINE)
    assert {heading.split()[1] for heading in headings} == set(OWN)
    for heading in headings:
        command = typer.main.get_command(app)
        for word in heading.split()[1:]:
            _, command, _ = command.resolve_command(None, [word])
        part = page.partition(f" {heading}\n")[2].partition("\n## ")[0]
        assert command.help in part
        if not hasattr(command, "commands"):
            for each in command.params:
                assert [option for option in each.opts if option.startswith("-") and option not in part] == []


def test_the_examples_of_the_help_are_commands(reference):
    lines = [
        line
        for block in re.findall(r"```text\n(.*?)```", reference.commands(), re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(lines) > 60
    for line in lines:
        command = re.split(r"\s{3,}", line)[0]
        read(re.sub(r"[|>].*", "", command).replace("'", "").split()[1:], line)


def test_every_key_is_in_the_reference(reference):
    page = reference.keys()
    for key in Recipe.model_fields:
        assert f"| `{key}` |" in page or f"\n## {key}\n" in page
    assert "| `batch_size` | `16` | Videos per step" in page
    assert "\n## bench.tune\n" in page


# ---- the built site


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    """A dead link or anchor is an error of the strict build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(CONFIG), "-d", str(tmp_path)]  # fmt: skip
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert len(pages) > 15
    for path, text in pages.items():
        loads = re.findall(r"<(?:script|img|iframe|source|link)\b[^>]*", text)
        foreign = [tag for tag in loads if re.search(r'(src|href)="(https?:)?//', tag)]
        assert [tag for tag in foreign if 'rel="canonical"' not in tag] == [], path
    # Results of benchmarks are outside the docs, but on the site.
    assert 'href="../benchmarks/results/input/"' in pages[tmp_path / "packing" / "index.html"]
