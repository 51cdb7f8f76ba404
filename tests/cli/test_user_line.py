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


@pytest.fixture
def published_weights(tmp_path):
    """The two files as they are published, but with random numbers."""
    things.weights(tmp_path / "cache" / "weights")


@pytest.fixture
def short(tmp_path):
    """An environment default: one short epoch, a small student, and most of UCF101 may be missing."""
    path = tmp_path / "short.yaml"
    path.write_text(
        "name: short\nstudent: r2plus1d_tiny\nmax_unreadable: 1.0\n"
        "clip: {frames: 8, size: 56}\ntrain: {epochs: 1, batch_size: 4, workers: 1}\n"
    )
    return {"CCL_RECIPE": str(path)}


@pytest.mark.slow
@pytest.mark.usefixtures("tree", "published_weights")
def test_the_line_runs_to_its_end_and_eval_retrieval_follows(ccl, short, tmp_path):
    done = spawn(*LINE, **short)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / done.stdout.strip() / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["data"]["classes"] == 51
    assert summary["data"]["seen"] == 8
    assert len(summary["data"]["missing"]) == summary["data"]["train"] - 8 > 4800
    assert not any(teacher["random_weights"] for teacher in summary["teachers"].values())
    assert summary["teachers"]["image:resnet34"]["variant"] == "resnet34.tv_in1k"
    done = ccl("eval", "--retrieval", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["retrieval"].keys() == {"r1", "r5", "r10", "map"}
    assert "recognition" not in result
    assert result["counts"]["test"]["read"] == 4
    assert result["counts"]["test"]["missing"] == result["counts"]["test"]["videos"] - 4
    # Absent videos are errors: four of almost two thousand queries can be right at most.
    assert result["retrieval"]["r10"] <= 100 * 4 / result["counts"]["test"]["videos"]


@pytest.mark.slow
@pytest.mark.usefixtures("tree", "published_weights")
def test_without_the_allowance_missing_videos_end_the_run(ccl, tmp_path):
    result = ccl(*LINE)
    assert result.code == 4
    assert "videos of the train split of 'ucf51-split1' are missing" in result.err
    assert "max_unreadable" in result.err
    assert not (tmp_path / "runs").exists()
