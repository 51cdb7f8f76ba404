"""The pages hang together: links and pictures exist, every page is in the navigation, and the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import util
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
import yaml

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


def nav_pages() -> list[str]:
    def leaves(node) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [leaf for each in (node.values() if isinstance(node, dict) else node) for leaf in leaves(each)]

    config = re.sub(r"!\S+", "", CONFIG.read_text(encoding="utf-8"))
    return leaves(yaml.safe_load(config)["nav"])


def test_every_page_is_in_the_navigation_once():
    listed = [page for page in nav_pages() if not page.startswith("benchmarks/")]
    assert sorted(listed) == sorted(
        [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")] + [*GENERATED]
    )


def test_the_results_in_the_navigation_exist():
    assert [
        page for page in nav_pages() if page.startswith("benchmarks/") and not (ROOT / page).is_file()
    ] == []


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


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attributes):
        values = {key: value or "" for key, value in attributes}
        self.ids.update(filter(None, [values.get("id"), values.get("name")]))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("script", "img", "iframe", "source"):
            self.loads += filter(None, [values.get("src")])
        elif tag == "link" and values.get("rel") != "canonical":
            self.loads.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "-f",
            str(CONFIG),
            "-d",
            str(folder),
        ],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_the_site_has_no_dead_link_and_loads_nothing_from_elsewhere(site):
    pages = {}
    for path in site.rglob("*.html"):
        pages[path] = _Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    dead, foreign = [], []
    for path, page in pages.items():
        foreign += [f"{path}: {target}" for target in page.loads if urlsplit(target).netloc]
        inner = [target for target in [*page.links, *page.loads] if not urlsplit(target).scheme]
        dead += [
            f"{path}: {target}"
            for target in inner
            if path.name != "404.html" and not _leads(site, path, target, pages)
        ]
    assert (dead, foreign) == ([], [])
    assert len(pages) > 15


def _leads(site: Path, path: Path, target: str, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(target)
    to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    to = to / "index.html" if to.is_dir() else to
    return to.is_file() and (
        not parts.fragment or to not in pages or unquote(parts.fragment) in pages[to].ids
    )


@pytest.mark.slow
def test_links_that_leave_the_docs_for_results_stay_in_the_site(site):
    assert 'href="../benchmarks/results/input/"' in (site / "packing" / "index.html").read_text()
