"""What the pages' commands find where they are run: small files under the names that the pages use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tests.conftest import moving_stripes
from tests.data import media

# As a user's own default: a small student and one short epoch; everything else is what is typed.
SHORT = """\
name: short
student: r2plus1d_tiny
clip: {frames: 4, size: 32}
train: {epochs: 1, batch_size: 8, workers: 0}
"""
# Evaluated runs for `ccl report`, before the page has any: a benchmark with embeddings instead of large teachers.
BENCH = """\
name: ucf51-bench
data: ucf51
student: r2plus1d_tiny
clip: {frames: 4, size: 32}
train: {epochs: 1, batch_size: 4, workers: 0}
bench:
  setups: {AI: ["audio:precomputed@audio.npz", "image:precomputed@image.npz"]}
  methods: {baseline: baseline, crd: crd, ccl: ccl}
  seeds: [0, 1]
"""
UCF = ("ApplyEyeMakeup", "PlayingCello")
_RATE = 32_000


def make(root: Path) -> None:
    """All files, at once: they are copied for each page."""
    rng = np.random.default_rng(0)
    _videos(root / "my_videos", rng)
    _sounds(root / "my_sounds", rng)
    _ucf(root / "data", rng)
    _activitynet(root / "data" / "activitynet", rng)
    _vggsound(root / "data" / "vggsound", rng)
    (root / "ucf51-bench.yaml").write_text(BENCH)
    (root / "short.yaml").write_text(SHORT)
    (root / "mine.yaml").write_text(
        SHORT.replace("short", "mine") + "data: folder:my_videos?test=0.25\nmethod: baseline\n"
    )
    videos = [
        path.relative_to(root / "my_videos").with_suffix("") for path in (root / "my_videos").rglob("*.mp4")
    ]
    (root / "list.csv").write_text(
        "path,label\n" + "".join(f"my_videos/{each}.mp4,{each.parent}\n" for each in videos)
    )
    ucf = [path.relative_to(root / "data" / "UCF-101").with_suffix("") for path in root.rglob("v_*.avi")]
    names = [each.as_posix() for each in [*videos, *ucf]]
    for modality, width in (("audio", 8), ("image", 12)):
        rows = rng.random((len(names), width), dtype=np.float32)
        np.savez(root / f"{modality}.npz", names=names, embedding=rows)


def weights(home: Path) -> None:
    """Both published files, with random numbers."""
    import timm
    import torch

    from ccl_cli.config.spec import parse_model
    from ccl_plugins.cnn14 import Cnn14

    home.mkdir(parents=True)
    network = Cnn14.from_spec(parse_model("audio:cnn14?weights=random"))
    state = {**network.state_dict(), "logmel_extractor.melW": network.mel.filters}
    torch.save({"iteration": 0, "model": state}, home / "Cnn14_emb512_mAP=0.420.pth")
    torch.save(timm.create_model("resnet34").state_dict(), home / "resnet34-b627a593.pth")


def _tone(label: int) -> np.ndarray:
    return np.sin(np.arange(_RATE) * (0.02 + 0.03 * label)).astype(np.float32) / 2


def _videos(folder: Path, rng: np.random.Generator) -> None:
    from ccl_cli.data.video.video_writer import write_clip

    for label, name in enumerate(("applause", "drums")):
        for number in range(4):
            sound = None if number == 0 else _tone(label)
            write_clip(folder / name / f"{number}.mp4", moving_stripes(rng, label), 25, sound)


def _sounds(folder: Path, rng: np.random.Generator) -> None:
    from ccl_cli.data.video.video_writer import write_clip

    for label, name in enumerate(("clap", "hit")):
        for number in range(4):
            write_clip(folder / name / f"{number}.mp4", moving_stripes(rng, label, 4), 25, _tone(label))


def _clip(path: Path, rng: np.random.Generator, label: int, codec: str = "mpeg4", sound: str = "mp2") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write(path, moving_stripes(rng, label), codec=codec, sound=_tone(label), sound_codec=sound)


def _ucf(folder: Path, rng: np.random.Generator) -> None:
    """Two training videos and a test video of two classes each, and lists of those in the official form."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\r\n" for number, name in enumerate(UCF, 1)))
    for part, groups in (("train", (8, 9)), ("test", (1,))):
        names = [f"{name}/v_{name}_g{group:02}_c01.avi" for name in UCF for group in groups]
        mark = " 1" if part == "train" else ""
        for split in (1, 2, 3):
            (lists / f"{part}list0{split}.txt").write_text("".join(f"{name}{mark}\r\n" for name in names))
        for name in names:
            _clip(folder / "UCF-101" / name, rng, UCF.index(name.partition("/")[0]))


def _activitynet(folder: Path, rng: np.random.Generator) -> None:
    database = {}
    for number in range(6):
        name, label = f"key{number:08}", number % 2
        _clip(folder / f"v_{name}.mp4", rng, label, "libx264", "aac")
        subset = "training" if number < 4 else "validation"
        stretch = {"segment": [0.1, 0.7], "label": ("Archery", "Surfing")[label]}
        database[name] = {"duration": 0.8, "subset": subset, "annotations": [stretch]}
    (folder / "activity_net.v1-3.min.json").write_text(
        json.dumps({"version": "VERSION 1.3", "database": database})
    )


def _vggsound(folder: Path, rng: np.random.Generator) -> None:
    rows = []
    for number in range(6):
        _clip(folder / f"key{number:08}_000030.mp4", rng, number % 2, "libx264", "aac")
        rows.append(
            f"key{number:08},30,{('rain', 'horn, car horn')[number % 2]!r},{'train' if number < 4 else 'test'}\n"
        )
    (folder / "vggsound.csv").write_text("".join(rows).replace("'", '"'))


def programs(folder: Path) -> None:
    """A cluster's scheduler that runs the job here and now."""
    for name, body in {
        "sbatch": 'bash "$1"',
        "srun": 'while [[ $1 == -* ]]; do shift; done; "$@"',
        "scontrol": 'echo "${@: -1}"',
    }.items():
        (folder / name).write_text(f"#!/bin/bash\nset -euo pipefail\n{body}\n")
        (folder / name).chmod(0o755)


def copy(things: Path, sandbox: Path) -> None:
    shutil.copytree(things, sandbox, symlinks=True)
