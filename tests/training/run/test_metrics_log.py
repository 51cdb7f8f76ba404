from __future__ import annotations

from ccl_cli.training.run.metrics_log import progress_lines

FIGURES = {
    **{"loss": 3.0, "accuracy": 0.5, "labelled": 1.0, "ce": 1.0, "nce/audio:a": 0.5, "nce/image:b": 1.5},
    **{"jsd/audio:a": 0.25, "skipped": 2, "clips_per_s": 9.54, "data_wait": 0.064},
}


def test_a_terminal_shows_every_term_by_its_teacher():
    assert progress_lines(FIGURES, "  val top-1 53.2%") == [
        "loss 3.000  ce 1.000  acc 50%  val top-1 53.2%",
        "audio:a  nce 0.500  jsd 0.250",
        "image:b  nce 1.500",
        "9.5 clips/s  data wait 6%  skipped 2",
    ]
