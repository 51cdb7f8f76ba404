from __future__ import annotations

import json

import pytest

from ccl_cli.errors import DataError
from ccl_cli.evaluation import correspondence as engine
from ccl_cli.report.figures.correspondence import percent, recall_panel, teachers
from ccl_cli.report.figures.registry import write_figure
from ccl_cli.report.page import page as module
from ccl_cli.report.records.results import load_results
from tests.report.folders import write_cell
from tests.report.pages import Reading
from tests.report.plots import axes_of, texts


@pytest.fixture
def section(monkeypatch):
    """What a page of this section alone says in it."""
    only = [each for each in module.SECTIONS if each.key == "correspondence"]
    monkeypatch.setattr(module, "SECTIONS", only)
    return lambda runs: module.page(load_results([runs])).partition('id="correspondence"')[2]


def test_every_teacher_once_for_all_runs_with_cards_and_every_class(study_runs, section):
    table, image = teachers(load_results([study_runs]))
    assert (table.teacher, image.teacher) == ("audio:precomputed", "image:small")
    assert len(list(study_runs.glob("*/correspondence-*"))) == 2  # of four runs with these teachers
    assert (len(table.cards), len(image.cards)) == (0, 2)
    assert all(card.jpeg and len(card.top) == 10 for card in image.cards)
    text = section(study_runs)
    assert "audio:precomputed has no classes of its own" in text
    assert text.count('<ol class="cards">') == 1
    for card in image.cards:
        assert all(f"<span>{name}</span><em>{percent(share)}</em>" in text for name, share in card.top)
    cells = Reading(text.partition(">")[2].partition("</section>")[0]).cells
    for name, row in image.probe["per_class"].items():
        at = [n for n, cell in enumerate(cells) if cell == name][1]  # the second teacher's
        assert cells[at + 1 : at + 3] == [row["verdict"], f"{row['recall']:.0f}"]


def test_the_bars_are_those_of_the_table(study_runs):
    for report in teachers(load_results([study_runs])):
        axes = axes_of(recall_panel(report))
        (strokes,) = axes.collections
        drawn = zip(axes.get_yticklabels(), axes.patches, strokes.get_segments(), strict=True)
        bars = [(name.get_text(), f"{bar.get_width():.0f}", f"{at[0][0]:.0f}") for name, bar, at in drawn]
        assert bars == [(row[0], row[2], row[4]) for row in report.rows[1:]]


def test_nothing_is_computed_twice_and_any_run_may_hold_it(copied, section, monkeypatch):
    monkeypatch.setattr(engine, "measure", lambda *a: pytest.fail("measured again"))
    before = section(copied)
    shown = load_results([copied]).best_run.folder
    other = next(run for run in copied.glob("*ccl*") if run != shown)
    for file in shown.glob("correspondence-*"):
        file.rename(other / file.name)
    assert section(copied) == before


def test_teachers_that_are_gone_leave_a_sentence(copied, section):
    for file in copied.glob("*/correspondence-audio*"):
        file.unlink()
    for run in copied.glob("*AI*"):
        recipe = (run / "recipe.yaml").read_text()
        (run / "recipe.yaml").write_text(recipe.replace("audio.npz", "gone.npz"))
    text = section(copied)
    assert text.count('class="absent"') == 1
    assert "gone.npz" in text
    for file in (*copied.glob("*/correspondence-*"), *copied.glob("*/manifest.jsonl")):
        file.unlink()
    with pytest.raises(DataError, match="contains no manifest") as caught:
        teachers(load_results([copied]))
    assert caught.value.message.count("contains no manifest") == 1  # one reason for both


def test_two_teachers_of_one_name_are_told_apart(copied):
    run = next(copied.glob("*ccl-AI-s1"))
    summary = json.loads((run / "summary.json").read_text())
    summary["teachers"]["image:small"]["fingerprint"] = "0-abcdef"
    (run / "summary.json").write_text(json.dumps(summary))
    *_, changed = teachers(load_results([copied]))
    assert changed.teacher == "image:small (abcdef)"
    assert "have changed since" in changed.missing


def test_no_teacher_at_all_and_other_videos(tmp_path, copied):
    write_cell(tmp_path / "b", "baseline", "", top1=50.0)
    with pytest.raises(DataError, match="None of these runs has a teacher"):
        teachers(load_results([tmp_path / "b"]))
    for file in copied.glob("*/eval-*.json"):
        file.write_text(json.dumps({"data": {"manifest": "0" * 16}}))
    with pytest.raises(DataError, match="other videos of clips"):
        teachers(load_results([copied]))


def test_the_figure_shows_both_and_survives_lost_videos(copied, tmp_path):
    write_figure(load_results([copied]), "correspondence", tmp_path / "whole.svg")
    whole = (tmp_path / "whole.svg").read_text()
    assert whole.count("<image") == 2
    assert texts(whole).count("Recall by nearest neighbours (%)") == 2
    for manifest in copied.glob("*/manifest.jsonl"):
        manifest.write_text(manifest.read_text().replace(".mp4", ".gone"))
    write_figure(load_results([copied]), "correspondence", tmp_path / "without.svg")
    assert texts((tmp_path / "without.svg").read_text()).count("no picture") == 2
