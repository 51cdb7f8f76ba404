from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from ccl_cli.errors import DataError
from ccl_cli.report.figures.overview import overview_panels
from ccl_cli.report.figures.registry import FIGURES, write_figure
from ccl_cli.report.page import page as module
from ccl_cli.report.page.page import page
from ccl_cli.report.page.render import render_macro
from ccl_cli.report.page.sections import SECTIONS
from ccl_cli.report.records.conclusion import conclusion
from ccl_cli.report.records.results import load_results
from ccl_cli.report.tables.build import entry, tables
from tests.helpers.browser import browser
from tests.report.folders import write_cell
from tests.report.pages import Reading, write_study
from tests.report.plots import titles

HOSTILE = ("<script>alert('1')</script>", '"><img src=x onerror=y>&amp;')


@pytest.fixture(scope="module")
def text(study_runs):
    return page(load_results([study_runs]))


def first_lines(text):
    return text.partition("<header>")[2].partition("</header>")[0]


def section(text, key):
    return text.partition(f'id="{key}"')[2].partition("</section>")[0]


def change(runs, name, **entries):
    """Change the evaluation of a run."""
    file = next(runs.glob(name)) / "eval-clips-test.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_all_sections_are_there_and_nothing_leaves_the_page(text):
    read = Reading(text)
    for each in SECTIONS:
        assert each.key in read.ids
        assert f"#{each.key}" in read.references
    assert len(read.ids) == len(set(read.ids))
    assert 'class="absent"' not in text
    assert {"main", "nav", "header", "footer"} <= set(read.tags)
    assert all(re.match(r"#|data:image/jpeg;base64,", reference) for reference in read.references)
    pictures = [reference for reference in read.references if reference.startswith("data:")]
    assert len(pictures) == 2 * 5 + 2  # two queries with neighbours, and a sample of each class
    assert not {"script", "link", "iframe", "object"} & set(read.tags)
    assert "http" not in re.sub(r"data:[^\"]*", "", text.replace("http-equiv", ""))
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")


def test_the_figures_are_those_of_the_tables_and_of_the_runs(study_runs, text):
    results = load_results([study_runs])
    cells = Reading(text).cells
    entries = [entry(t, row, column) for t in tables(results) for row in t.rows for column in t.columns]
    shown = [f"{each.mean} {each.spread}".strip() for each in entries]
    assert "72.5 ± 3.5" in shown
    assert shown == [cell for cell in cells if cell in shown][: len(shown)]
    assert cells[cells.index("test") :][:6] == ["test", "6", "5", "0", "1", "6"]
    assert cells[cells.index("audio:cnn14") :][:5] == ["audio:cnn14", "8", "2", "2", "6"]
    assert "test/x: damaged" in text


def test_texts_are_escaped_and_numbers_stand_to_the_right():
    shown = render_macro("macros.html", "absent", text="Use `ccl eval <RUN>`, not <b>.")
    assert shown == '<p class="absent">Use <code>ccl eval &lt;RUN&gt;</code>, not &lt;b&gt;.</p>'
    lines = [
        ("class", "verdict", "recall", "interval"),
        ("a", "not", "12", "3 to 7"),
        ("b", "weakly", "-", ""),
    ]
    shown = render_macro("macros.html", "table", lines=lines)
    assert shown.count('<td class="text">') == 2
    assert "<td>12</td>" in shown


def test_hostile_names_stay_text(clips_folder, tmp_path):
    for extra in ("<b>bold</b>", "a&b"):
        write_cell(tmp_path / "r", extra, "AI", 0, method="ccl", data="clips", top1=1.0)
    write_study(tmp_path / "r", clips_folder, HOSTILE, own=HOSTILE)
    results = load_results([tmp_path / "r"])
    text = page(results)
    read = Reading(text)  # asserts that tags are balanced and that none has a handler
    assert not {"script", "b"} & set(read.tags)
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;" in text
    cards = text.partition('<ol class="cards">')[2].partition("<details")[0]
    assert cards.count("<span>&lt;script&gt;") == cards.count("<strong>&lt;script&gt;") * 2 == 2
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    for name in FIGURES:
        write_figure(results, name, tmp_path / "f.svg")
        assert not [each for each in ET.parse(tmp_path / "f.svg").iter() if each.tag.endswith("script")]


def test_without_videos_the_page_says_so_and_videos_that_went_later_lack_their_pictures(
    clips_folder, tmp_path
):
    clips = shutil.copytree(clips_folder, tmp_path / "clips")
    runs = write_study(tmp_path / "r", clips)
    shutil.move(clips, tmp_path / "aside")
    text = page(load_results([runs]))
    assert text.count("The test videos of &#39;clips&#39; are not on disk") == 3
    with pytest.raises(DataError, match="are not on disk"):
        write_figure(load_results([runs]), "tsne", tmp_path / "f.png")
    shutil.move(tmp_path / "aside", clips)
    page(load_results([runs]))
    shutil.rmtree(clips / "set" / "test")
    text = page(load_results([runs]))
    assert text.count('class="none"') == 4  # the queries and the samples
    assert text.count('class="absent"') == 0
    shutil.rmtree(clips)
    assert "No pictures to show" in page(load_results([runs]))


def test_the_page_begins_with_what_was_found_and_a_plot_of_it(study_runs, text):
    results = load_results([study_runs])
    header = first_lines(text)
    lines = re.findall(r"<p[^>]*>(.*?)</p>", header)
    assert lines[: len(conclusion(results))] == conclusion(results)
    assert "ccl AI reaches 72.5 ± 3.5 % top-1 on clips and the baseline 52.5 ± 3.5 %." in lines
    plots = re.findall(r"<svg.*?</svg>", header)
    assert [titles(plot)[0] for plot in plots] == [panel.text for panel in overview_panels(results)]
    plots = re.findall(r"<svg.*?</svg>", text)
    assert len(plots) >= 10
    assert all('role="img"' in plot and titles(plot)[0] for plot in plots)


def test_the_first_lines_are_about_the_data_of_the_page_and_say_what_was_chosen_on_it(copied, monkeypatch):
    """Two runs on a data set that comes first in the tables, with a difference of the other sign."""
    for seed, gap in ((0, 9.0), (1, 8.0)):
        write_cell(copied / "u", "ccl", "AI", seed, top1=20.0)
        write_cell(copied / "u", "baseline", "", seed, top1=20.0 + gap)
    change(copied, "*ccl-AI-s0", selection="best on <test>")
    monkeypatch.setattr(module, "SECTIONS", [each for each in SECTIONS if each.key == "origin"])
    results = load_results([copied])
    assert (results.data, results.datasets) == ("clips", ["ucf51-split1", "clips"])
    text = page(results)
    header = first_lines(text)
    assert "gets 20.0 points more top-1 than without, the same in all 2 seeds." in header
    assert "ccl AI was selected as the best on these test videos, so its result is biased upwards." in header
    assert "1 of 6 runs were evaluated at a selected checkpoint (best on &lt;test&gt;), not at" in header
    assert "10 runs and their seeds" in text
    assert Reading(section(text, "origin").partition(">")[2]).cells.count("ucf51-split1") == 4
    for seed in (0, 1):
        write_cell(copied, "fitnet", "A", seed, data="clips", top1=90.0 + seed)
    header = first_lines(page(load_results([copied])))
    assert "With both teachers (ccl) the student gets 20.0 points more" in header
    assert "fitnet is better than baseline in A" in header


def test_other_videos_than_the_runs_own_are_not_shown_as_its_own(copied, tmp_path):
    change(copied, "*ccl-AI-s0", data={"manifest": "0" * 16})
    text = page(load_results([copied]))
    assert text.count("was evaluated on other videos of clips than those it was trained with") == 3
    with pytest.raises(DataError, match="evaluated on other videos"):
        write_figure(load_results([copied]), "confusion", tmp_path / "f.png")


def test_one_setup_without_classes_leaves_the_others_their_section(copied, monkeypatch):
    monkeypatch.setattr(module, "SECTIONS", [each for each in SECTIONS if each.key == "classes"])
    write_cell(copied, "ccl", "A", 0, data="clips", top1=60.0)  # no evaluation by class
    shown = section(page(load_results([copied])), "classes")
    assert "ccl AI: better in 2 classes" in shown
    assert shown.count("These runs have no accuracies by class.") == 1
    for file in copied.glob("*/eval-*.json"):
        file.unlink()
    shown = section(page(load_results([copied])), "classes")
    assert "<details" not in shown
    assert shown.count("These runs have no accuracies by class.") == 1


def test_a_run_with_nothing_but_its_figures(tmp_path):
    write_cell(tmp_path / "r", "ccl", top1=50.0)
    text = page(load_results([tmp_path / "r"]))
    Reading(text)
    assert "None of these runs has a readable metrics.jsonl." in text
    assert "contains no manifest.jsonl" in text
    assert text.count("There is no baseline among these runs to compare with.") == 2


@pytest.mark.slow
def test_a_browser_shows_it_without_a_word_of_complaint(text, tmp_path):
    (tmp_path / "p.html").write_text(text)
    words = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900"]
    words += [f"--screenshot={tmp_path / 'p.png'}", (tmp_path / "p.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(Image.open(tmp_path / "p.png").getcolors(10**7)) > 50


def test_a_page_of_cached_results_imports_neither_torch_nor_scikit_learn(study_runs, tmp_path):
    program = (
        f"import sys; from ccl_cli import write_page; write_page({str(study_runs)!r}, output='page.html'); "
        "print({'torch', 'sklearn', 'scipy.stats'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "set()"
