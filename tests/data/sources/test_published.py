"""ActivityNet, UCF101 and VGGSound: the publisher's list, matched with the user's videos."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.dataset import TrainingClips
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.sources import activitynet, ucf, vggsound
from ccl_cli.data.sources.about import ListMissing
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import DataError
from tests.data.media import touch


def entry(subset: str, *segments: tuple[str, object, object]) -> dict:
    """An annotated video in the published form, with a key that is not used."""
    annotations = [{"segment": [start, end], "label": label} for label, start, end in segments]
    return {"duration": 82.75, "subset": subset, "annotations": annotations}


def database(**entries: object) -> str:
    return json.dumps({"database": entries})


DATABASE = {
    "ZN-z7": entry("training", ("Surfing", 0.2, 0.5), ("Ironing", 0.5, 1.1), ("Surfing", 1, 1.5)),
    "-GSY1": entry("validation", ("Archery", 0.0, 0.8)),
    "sJE_R": entry("training", ("Archery", 0, 0), ("Archery", 0.01, 0.02), ("Archery", 0.1, 0.9)),
    "nobody": entry("testing"),
}
CLIPS = """# YouTube ID, start seconds, label,train/test split.
---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train

3qesirWAGt4,20,"vehicle horn, car horn, honking",train
"""


class Set(NamedTuple):
    """A small published set: its source, its list, the usual files of its videos, and its rows without paths."""

    load: Callable
    title: str
    lists: dict[str, str]
    files: list[str]
    rows: list[tuple]
    classes: tuple[str, ...]


ACTIVITYNET = Set(
    activitynet.load,
    "annotations",
    {"activity_net.v1-3.min.json": database(**DATABASE)},
    ["v_ZN-z7.mp4", "v_-GSY1.mp4", "v_sJE_R.mp4"],
    [("v_ZN-z7", 2, "train"), ("v_-GSY1", 0, "test"), ("v_sJE_R", 0, "train")],  # 0.8 s of surfing
    ("Archery", "Ironing", "Surfing"),
)
UCF = Set(
    ucf.load_ucf101,
    "split lists",
    {
        "ucfTrainTestlist/trainlist01.txt": "Hammering/v_b.avi 2\r\n\r\nHammerThrow/v_a.avi 1\r\n",
        "ucfTrainTestlist/testlist01.txt": "Biking/v_c.avi\r\n",
    },
    ["Hammering/v_b.avi", "HammerThrow/v_a.avi", "Biking/v_c.avi"],
    [("Hammering/v_b", 1, "train"), ("HammerThrow/v_a", 2, "train"), ("Biking/v_c", 0, "test")],
    ("Biking", "Hammering", "HammerThrow"),  # without regard to case
)
VGGSOUND = Set(
    vggsound.load,
    "list",
    {"vggsound.csv": CLIPS},
    ["---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_000030.mp4", "3qesirWAGt4_000020.mp4"],
    [
        ("---g-f_I2yQ_000001", 0, "test"),
        ("--0PQM4-hqg_000030", 2, "train"),
        ("3qesirWAGt4_000020", 1, "train"),
    ],
    ("people marching", "vehicle horn, car horn, honking", "waterfall burbling"),
)
every = pytest.mark.parametrize(
    "each", [ACTIVITYNET, UCF, VGGSOUND], ids=["activitynet", "ucf101", "vggsound"]
)


def write(folder: Path, lists: dict[str, str]) -> Path:
    for name, text in lists.items():
        touch(folder / name)
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder / next(iter(lists)).partition("/")[0]


@every
def test_the_rows_of_the_list(tmp_path, each):
    write(tmp_path, each.lists)
    touch(*(tmp_path / name for name in each.files))
    manifest = each.load(str(tmp_path))
    manifest.validate(["train", "test"])
    assert [(v.id, v.label, v.split) for v in manifest.videos] == each.rows
    assert [v.path for v in manifest.videos] == [tmp_path / name for name in each.files]
    assert {(v.start, v.end) for v in manifest.videos} == {(None, None)}
    assert manifest.classes == each.classes


def test_trimmed_lists_every_segment_that_has_a_length(tmp_path, caplog):
    write(tmp_path, ACTIVITYNET.lists)
    touch(tmp_path / "v_-GSY1.mp4")
    with caplog.at_level("INFO", "ccl"):
        manifest = activitynet.load(str(tmp_path), segments="trimmed")
    assert manifest.name == "activitynet-trimmed"
    assert [(v.id, v.label, v.start, v.end) for v in manifest.split("train")] == [
        ("v_ZN-z7_0", 2, 0.2, 0.5),
        ("v_ZN-z7_1", 1, 0.5, 1.1),
        ("v_ZN-z7_2", 2, 1.0, 1.5),
        ("v_sJE_R_2", 0, 0.1, 0.9),
    ]
    assert "2 videos or segments" in caplog.text


def test_training_sees_nothing_outside_a_segment(tmp_path):
    """Brightness is the time: 25 frames a second from black, 5 levels each."""
    levels = np.arange(40, dtype=np.uint8) * 5
    frames = np.broadcast_to(levels[:, None, None, None], (40, 36, 48, 3))
    write_clip(tmp_path / "v_x.mp4", frames, 25)
    write(tmp_path, {"activity_net.v1-3.min.json": database(x=entry("training", ("Surfing", 0.4, 0.8)))})
    videos = activitynet.load(str(tmp_path), segments="trimmed").videos
    samples = TrainingClips(videos, Clip(frames=6, size=32, short_side=36), {}, 0)
    read = [samples[[Draw(epoch, epoch, 0)]] for epoch in range(8)]
    seen = {
        round(float(frame.float().mean()) / 5) for each in read for frame in each.batch.video[0].unbind(1)
    }
    assert seen <= {*range(9, 21)}  # frames 10 to 19, up to the codec's error
    assert len(seen) > 6


@pytest.mark.parametrize(
    ("each", "files"),
    [
        (ACTIVITYNET, ["v1-2/val/ZN-z7.webm", "-GSY1.mp4", "x/v_sJE_R.mkv"]),
        (UCF, ["v_b.avi", "v_a.mp4", "v_c.avi"]),
        (UCF, ["UCF-101/Hammering/v_b.mp4", "UCF-101/v_a.avi", "UCF-101/Biking/v_c.avi"]),
        (VGGSOUND, ["test/---g-f_I2yQ_1.webm", "--0PQM4-hqg_30_40.mp4", "3qesirWAGt4_20000_30000.mp4"]),
    ],
)
def test_other_names_folders_and_formats(tmp_path, each, files):
    write(tmp_path, each.lists)
    touch(*(tmp_path / name for name in files))
    assert [v.path for v in each.load(str(tmp_path)).videos] == [tmp_path / name for name in files]


@pytest.mark.parametrize("flat", [False, True])
@every
def test_a_listed_video_that_is_not_there_counts_as_missing(tmp_path, each, flat):
    files = [Path(name).name if flat else name for name in each.files]
    write(tmp_path, each.lists)
    touch(tmp_path / files[0], tmp_path / "other/unlisted.mp4")
    manifest = each.load(str(tmp_path))
    missing = [video.path for split in ("train", "test") for video in manifest.missing(split)]
    assert {*missing} == {tmp_path / name for name in files[1:]}


@every
def test_the_list_inside_beside_or_elsewhere_and_the_data_folder(tmp_path, monkeypatch, each):
    monkeypatch.setenv("CCL_DATA", str(tmp_path / "d"))
    home = tmp_path / "d" / ("UCF-101" if each is UCF else each.load.__module__.rpartition(".")[2])
    touch(*(home / name for name in each.files))
    for folder in (home, home.parent):
        place = write(folder, each.lists)
        assert len(each.load("").videos) == 3
        elsewhere = place.rename(tmp_path / f"elsewhere-{folder.name}")
        assert len(each.load(str(home), lists=str(elsewhere)).videos) == 3


@every
def test_each_absent_thing_is_named_with_where_to_get_it(tmp_path, each):
    touch(tmp_path / "unlisted.mp4")
    with pytest.raises(ListMissing, match=f"lacks its {each.title}.*https://.*--yes") as only_list:
        each.load(str(tmp_path))
    assert only_list.value.place == tmp_path / next(iter(each.lists)).partition("/")[0]
    with pytest.raises(DataError, match=rf"(?s)lacks its {each.title}.* lacks its videos.*http") as both:
        each.load(str(tmp_path / "absent"))
    assert not isinstance(both.value, ListMissing)
    write(tmp_path, each.lists)
    with pytest.raises(DataError, match=r"lacks its videos.*http"):
        each.load(str(tmp_path))


def test_the_lists_of_ucf_may_do_without_videos(tmp_path):
    with pytest.raises(ListMissing):
        ucf.load_ucf101(str(tmp_path), videos=False)
    write(tmp_path, UCF.lists)
    assert len(ucf.load_ucf101(str(tmp_path), videos=False).missing("train")) == 2


BROKEN = [
    (
        ACTIVITYNET,
        [
            "{",
            '{"videos": {}}',
            database(**{"../x": {"subset": "training"}}),
            database(x={"subset": "train"}),
            database(x=entry("training", ("Surfing", -1, 2))),
            database(x=entry("training", ("Surfing", 0, float("inf")))),
        ],
    ),
    (UCF, ["\nHammering/v_a.avi\nnonsense\n", "a/b/c.avi"]),
    (
        VGGSOUND,
        [
            "a,1,dog barking",
            "a,1,vehicle horn, car horn,train",
            "../../etc/x,1,dog barking,train",
            "a,-1,dog barking,train",
            "a,1.5,dog barking,train",
            "a," + "9" * 5000 + ",dog barking,train",
            "a,1, ,train",
            "a,1,dog barking,validation",
            'a,1,"dog,train',
        ],
    ),
]


@pytest.mark.parametrize(
    ("each", "text"), [(each, text) for each, texts in BROKEN for text in [*texts, "\udcff"]]
)
def test_a_list_that_makes_no_sense_is_named(tmp_path, each, text):
    write(tmp_path, each.lists)
    touch(*(tmp_path / name for name in each.files))
    path = tmp_path / next(iter(each.lists))
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=path.name) as caught:
        each.load(str(tmp_path))
    assert "\n" not in caught.value.message


# ---- the publishers' own lists


@pytest.fixture(scope="module")
def official(tmp_path_factory, shared) -> Path:
    """The official lists beside a small file for every video of the first split."""
    root = tmp_path_factory.mktemp("official")
    lists = shared / "data/splits/ucfTrainTestlist"
    for part in ("train", "test"):
        names = [line.split()[0] for line in (lists / f"{part}list01.txt").read_text().splitlines()]
        touch(*(root / "UCF-101" / name for name in names))
    (root / "ucfTrainTestlist").symlink_to(lists)
    return root


@pytest.mark.parametrize(
    ("load", "split", "numbers"),
    [
        (ucf.load_ucf101, 1, (101, 9537, 3783)),
        (ucf.load_ucf51, 1, (51, 4901, 1944)),
        (ucf.load_ucf51, 2, (51, 4930, 1915)),
        (ucf.load_ucf51, 3, (51, 4945, 1900)),
    ],
)
def test_the_official_numbers(official, shared, load, split, numbers):
    manifest = load(str(official), split=split)
    assert (len(manifest.classes), len(manifest.split("train")), len(manifest.split("test"))) == numbers
    if load is ucf.load_ucf101:
        lines = (shared / "data/splits/ucfTrainTestlist/classInd.txt").read_text().splitlines()
        assert list(manifest.classes) == [line.split()[1] for line in lines]
    else:
        names = set(np.load(shared / "data/features/ucf51_cnn14_emb512.npz")["names"].tolist())
        assert len({video.id for video in manifest.videos} - names) == 8  # have no features of the authors


def test_the_official_test_list_of_vggsound(tmp_path, shared):
    with (shared / "data/splits/vggsound_test.csv").open(newline="") as file:  # in another form
        names = [(row[0].removesuffix(".mp4"), row[1]) for row in csv.reader(file)]
    with (tmp_path / "vggsound.csv").open("w", newline="") as file:
        csv.writer(file).writerows([name[:11], int(name[12:]), label, "test"] for name, label in names)
    touch(tmp_path / f"{names[0][0]}.mp4")
    manifest = vggsound.load(str(tmp_path))
    manifest.validate(["test"])
    assert len(manifest.classes) == 309
    assert [video.id for video in manifest.videos] == [name for name, _ in names]
    assert len(manifest.missing("test")) == 15446 - 1
