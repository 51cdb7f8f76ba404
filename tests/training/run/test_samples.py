from __future__ import annotations

import logging

from PIL import Image

from ccl_cli.training.run import samples
from ccl_cli.training.train import train
from tests.training.runs import lines, recipe


def test_the_first_batch_is_drawn_once_and_changes_no_loss(clips_folder, tmp_path, monkeypatch):
    drawn = train(recipe(clips_folder, train={"max_steps": 1}), output=tmp_path / "drawn")
    picture = drawn / "samples.png"
    with Image.open(picture) as image:
        assert image.width > 600
    written = picture.stat().st_mtime_ns
    train(recipe(clips_folder, train={"max_steps": 2}), resume=drawn)
    assert picture.stat().st_mtime_ns == written

    cell = tmp_path / "cell"
    cell.mkdir()
    (cell / "cell.json").write_text("{}")
    without = train(recipe(clips_folder, train={"max_steps": 2}), output=cell)
    assert not (without / "samples.png").exists()
    assert lines(without) == lines(drawn)


def test_a_batch_that_cannot_be_drawn_ends_no_run(clips_folder, monkeypatch, caplog):
    monkeypatch.setattr(samples, "sample_sheet", lambda *arguments: 1 / 0)
    with caplog.at_level(logging.WARNING):
        run = train(recipe(clips_folder, train={"max_steps": 1}))
    assert len(lines(run)) == 1
    assert "The first batch could not be drawn: division by zero." in caplog.text
    assert not list(run.glob("*.png"))
