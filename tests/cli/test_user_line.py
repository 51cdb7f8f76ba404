"""The line a newcomer types, on a tree in UCF101's shape made of real clips, with weights in their published formats."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.cli.conftest import spawn
from tests.docs import things

LINE = ["train", "--teacher", "audio:cnn14", "--teacher", "image:resnet34", "--data", "ucf51"]
CLASSES = ["ApplyEyeMakeup", "BandMarching", "PlayingCello", "WritingOnBoard"]


@pytest.fixture
def tree(shared, tmp_path):
    """``data/``: two training and one test video of four classes, under names from the official lists."""
    lists = shared / "data" / "splits" / "ucfTrainTestlist"
    shutil.copytree(lists, tmp_path / "data" / "ucfTrainTestlist")
    clips = iter(sorted((shared / "data" / "fightsurv" / "fight").glob("*.mp4")))
    for list_name, count in (("trainlist01", 2), ("testlist01", 1)):
        names = [line.split()[0] for line in (lists / f"{list_name}.txt").read_text().splitlines()]
        for label in CLASSES:
            for name in [name for name in names if name.startswith(f"{label}/")][:count]:
                target = tmp_path / "data" / "UCF-101" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(next(clips))


# One short epoch of a small student, and most of UCF101 may be missing.
SHORT = """\
name: short
student: r2plus1d_tiny
max_unreadable: 1.0
clip: {frames: 8, size: 56}
train: {epochs: 1, batch_size: 4, workers: 1}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("tree")
def test_the_line_runs_to_its_end_and_eval_retrieval_follows(ccl, tmp_path):
    things.weights(tmp_path / "cache" / "weights")
    refused = ccl(*LINE)
    assert (refused.code, "max_unreadable" in refused.err) == (4, True)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "short.yaml").write_text(SHORT)
    done = spawn(*LINE, CCL_RECIPE=str(tmp_path / "short.yaml"))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / done.stdout.strip() / "summary.json").read_text())
    assert (summary["finished"], summary["data"]["classes"], summary["data"]["seen"]) == (True, 51, 8)
    assert len(summary["data"]["missing"]) == summary["data"]["train"] - 8 > 4800
    assert not any(teacher["random_weights"] for teacher in summary["teachers"].values())
    result = json.loads(ccl("eval", "--retrieval", "--json").out)
    assert result["retrieval"].keys() == {"r1", "r5", "r10", "map"}
    counts = result["counts"]["test"]
    assert (counts["read"], counts["missing"]) == (4, counts["videos"] - 4)
    # Absent videos are errors: four of almost two thousand queries can be right at most.
    assert result["retrieval"]["r10"] <= 100 * 4 / counts["videos"]
