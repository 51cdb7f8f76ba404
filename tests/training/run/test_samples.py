from __future__ import annotations

import logging

from PIL import Image

from ccl_cli.training.run import samples
from ccl_cli.training.train import train
from tests.training.runs import lines, recipe


def test_the_first_batch_is_drawn_once_and_changes_no_loss(clips_folder, tmp_path, monkeypatch, caplog):
    drawn = train(recipe(clips_folder, train={"max_steps": 1}), output=tmp_path / "drawn")
    picture = drawn / "samples.png"
    with Image.open(picture) as image:
        assert image.width > 600
    written = picture.stat().st_mtime_ns
    train(recipe(clips_folder, train={"max_steps": 2}), resume=drawn)
    assert picture.stat().st_mtime_ns == written

    monkeypatch.setattr(samples, "sample_sheet", lambda *arguments: 1 / 0)
    for name in ("cell", "failed"):  # a cell of a benchmark has no picture
        (tmp_path / name).mkdir()
        (tmp_path / "cell" / "cell.json").write_text("{}")
        with caplog.at_level(logging.WARNING):
            run = train(recipe(clips_folder, train={"max_steps": 2}), output=tmp_path / name)
        assert not list(run.glob("*.png"))
        assert lines(run) == lines(drawn)
        assert ("could not be drawn: division by zero." in caplog.text) is (name == "failed")
