"""The packages of `plugins/` that are not part of ccl's own: built, installed and used as a third party's are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ccl_cli.data.sources import load_data
from tests.helpers.plugin_folder import PLUGINS
from tests.plugins.sentence_encoder import write_encoder

ROOT = PLUGINS.parent
SOUND, PICTURE = "audio:efficientat_mn04?weights=random&seconds=1", "image:small?weights=random"
# By package, one teacher of it.
EXAMPLES = {
    "ccl-efficientat": "audio:efficientat_mn04",
    "ccl-text": "text:sentence",
    "ccl-transformers": "video:hf",
}
SMALL = """\
student: r2plus1d_tiny
clip: {frames: 8, size: 32, short_side: 64}
train: {epochs: 1, batch_size: 8, max_steps: 4, workers: 1}
optim: {lr: 0.01}
"""


def pip(*arguments):
    """Without any index: what is needed to build lies in this environment."""
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *offline], check=True, timeout=300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with these packages, and nothing else of them on the path."""
    target = tmp_path_factory.mktemp("site")
    for name in EXAMPLES:
        pip("install", "--target", str(target), str(PLUGINS / name))
    return target


def ccl(installed, *arguments):
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (installed, ROOT, PLUGINS))),
        "COLUMNS": "200",
        "PYTHONWARNINGS": "error::UserWarning",
    }
    done = subprocess.run(
        [sys.executable, "-m", "ccl_cli", *arguments], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_they_are_listed_and_load(installed):
    shown = [line.split() for line in ccl(installed, "plugins", "ls", "--load").stdout.splitlines()]
    ours = {line[1]: (line[2], line[-1]) for line in shown if line[2] in EXAMPLES}
    for modality in ("video", "image", "audio", "text"):
        assert ours[f"{modality}:hf"] == ("ccl-transformers", "loads")
    assert ours["text:sentence"] == ("ccl-text", "loads")
    assert ours["audio:efficientat_mn10"] == ("ccl-efficientat", "loads")
    assert len(ours) == 11
    said = ccl(installed, "teachers", "info", "audio:efficientat_mn10").stdout
    assert "960" in said
    assert "mn10_as_mAP_471.pt" in said


@pytest.mark.slow
def test_teachers_of_every_package_train_a_student_that_needs_none_of_them(installed, tmp_path):
    from tests.plugins.hub_models import write_model  # imports transformers, which takes seconds

    names, captions = f"text:sentence@{write_encoder(tmp_path / 'encoder')}", tmp_path / "captions.csv"
    (tmp_path / "small.yaml").write_text(SMALL)
    videos = load_data("clips:toy?classes=2&per_class=8&size=60").split("train")
    rows = [f"{video.id},a cat moving {'left' if video.label else 'up'}" for video in videos[::2]]
    captions.write_text("\n".join(["id,text", *rows]) + "\n")
    hub = {"video": "videomae", "image": "vit", "audio": "clap", "text": "bert"}
    teachers = [SOUND, PICTURE, names, f"{names}?captions={captions}"]
    teachers += [f"{modality}:hf@{write_model(tmp_path / name, name)}" for modality, name in hub.items()]
    flags = [
        "--data",
        "clips:toy?classes=2&per_class=8&size=60",
        "--recipe",
        "small.yaml",
        "--set",
        "cache.use=build",
    ]
    flags += [part for teacher in teachers for part in ("--teacher", teacher)]
    run = tmp_path / ccl(installed, "train", *flags).stdout.strip().splitlines()[-1]
    summary = json.loads((run / "summary.json").read_text())
    records, counts = summary["teachers"], summary["data"]["modalities"]
    assert summary["finished"]
    assert len(records) == len(teachers)
    assert [name for name in records if records[name]["sees_label"]] == ["text:sentence", "text:hf"]
    assert all(each["cached"] for each in records.values())
    assert records["video:hf"]["variant"].startswith("videomae?pool=mean#")
    assert counts["text:sentence"] == {"present": len(videos)}
    assert counts["text:sentence#2"] == {"present": len(rows), "absent": len(videos) - len(rows)}
    # Nothing of the teachers is there any more: a student is tested by what it sees.
    captions.unlink()
    done = ccl(tmp_path / "nowhere", "eval", str(run), "--json")
    assert json.loads(done.stdout)["recognition"]["top1"] >= 0


@pytest.mark.slow
def test_the_wheel_of_ccl_holds_none_of_them(tmp_path):
    pip("wheel", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("ccl_cli-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = (archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    assert {Path(name).parts[0] for name in names} <= {
        "ccl_cli",
        "ccl_plugins",
        next(name for name in names if name.endswith("/METADATA")).partition("/")[0],
    }
    assert "efficientat" not in points
    assert "ccl_text" not in points
    assert "ccl_transformers" not in points
