"""Every check of a data source, with sources that are wrong in just that."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.testing import check_dataset
from ccl_cli.testing import dataset as kit


def good(location: str) -> Manifest:
    root = Path(location).absolute()
    paths = sorted(root.rglob("*.mp4")) if root.is_dir() else []
    if not paths:
        raise DataError(f"There is no video in '{root}'.")
    videos = (
        Video(path.relative_to(root).as_posix(), path, ("right", "down").index(path.parent.name), "train")
        for path in paths
    )
    return Manifest("good", ("right", "down"), tuple(videos))


def each(**change):
    """The good source with some values of each row changed."""

    def source(location: str) -> Manifest:
        found = good(location)
        return replace(
            found, videos=tuple(replace(v, **{k: f(v) for k, f in change.items()}) for v in found.videos)
        )

    return source


def changed(**change):
    """The good source with other attributes of the manifest."""
    return lambda location: replace(good(location), **change)


def bare(location: str):
    return list(good(location).videos)


COUNT = itertools.count()


def restless(location: str) -> Manifest:
    found = good(location)
    turn = next(COUNT) % len(found.videos)
    return replace(found, videos=[*found.videos[turn:], *found.videos[:turn]])


def takes_all(location: str, **options: object) -> Manifest:
    return good(location)


def trusting(location: str) -> Manifest:
    """A place that is not there is an empty list."""
    try:
        return good(location)
    except DataError:
        return Manifest("good", ("right", "down"), ())


def careless(location: str) -> Manifest:
    (Path(location) / "train").stat()
    return good(location)


WRONG = [
    ("manifest", bare),
    ("manifest", changed(name="")),
    ("classes", changed(classes=("right", ""))),
    ("classes", changed(classes=("right", "right"))),
    ("rows", each(id=lambda video: "same")),
    ("rows", each(id=lambda video: str(video.path))),
    ("rows", each(label=lambda video: 7)),
    ("rows", each(path=lambda video: Path("relative") / video.path.name)),
    ("order", restless),
    ("videos", each(start=lambda video: 100.0)),
    ("videos", each(path=lambda video: Path(__file__))),
    ("unknown option", takes_all),
    ("wrong place", trusting),
    ("wrong place", careless),
]


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_a_source_that_is_wrong_in_one_thing_fails_that_check_alone(clips_folder, check, wrong):
    (verdict,) = check_dataset(wrong, str(clips_folder / "set")).failures
    assert verdict.check == check
    assert len(verdict.message) > 20
    assert "\n" not in verdict.message


def test_every_check_has_a_source_that_fails_it():
    assert {check for check, _ in WRONG} == set(kit.check.names)


def test_a_good_source_passes_everything(clips_folder):
    report = check_dataset(good, str(clips_folder / "set"))
    assert [verdict.state for verdict in report.verdicts] == ["ok"] * len(kit.check.names)


def test_without_any_video_on_this_machine_reading_is_not_tried(tmp_path):
    absent = each(path=lambda video: video.path.with_suffix(".gone"))
    (tmp_path / "right").mkdir()
    (tmp_path / "right" / "a.mp4").touch()
    found = {verdict.check: verdict for verdict in check_dataset(absent, str(tmp_path)).verdicts}
    verdict = found["videos"]
    assert (verdict.state, verdict.message) == ("skipped", "none of its videos is on this machine")


def test_a_location_that_cannot_be_listed_says_so(tmp_path):
    with pytest.raises(DataError, match="There is no folder"):
        check_dataset(f"folder:{tmp_path / 'absent'}")


@pytest.fixture
def places(tmp_path, clips_folder):
    """A real location for each source that comes with ccl, of as few real clips as it takes."""
    (tmp_path / "list.csv").write_text(
        f"path,label\n{clips_folder}/set/train/right/2.mp4,right\n{clips_folder}/set/train/down/2.mp4,down\n"
    )
    load_data(f"folder:{clips_folder / 'set'}").save(tmp_path / "set.jsonl")
    published = _published(tmp_path, clips_folder / "set/train/right/2.mp4")
    return published | {
        "folder": f"folder:{clips_folder / 'set'}",
        "folder with options": f"folder:{clips_folder / 'set' / 'train'}?test=0.25&val=0.25",
        "csv": f"csv:{tmp_path / 'list.csv'}",
        "manifest": f"manifest:{tmp_path / 'set.jsonl'}",
        "clips": "clips?classes=2&per_class=1&size=36&seconds=0.2",
        "synthetic": "synthetic?motion_groups=2&clips=2&val_clips=0&test_clips=1&size=24&frames=4",
    }


def _published(root: Path, video: Path) -> dict[str, str]:
    """Folders as the publishers of data sets lay them out, one real video under every listed name."""
    activity = {"duration": 1, "annotations": [{"segment": [0.1, 0.5], "label": "Surfing"}]}
    lists = {
        "ucf101/ucfTrainTestlist/trainlist01.txt": "Biking/v_Biking_g08_c01.avi 1\n",
        "ucf101/ucfTrainTestlist/testlist01.txt": "Biking/v_Biking_g01_c01.avi\n",
        "activitynet/activity_net.v1-3.min.json": json.dumps(
            {"database": {"a": activity | {"subset": "training"}, "b": activity | {"subset": "validation"}}}
        ),
        "vggsound/vggsound.csv": "a,1,waterfall burbling,train\nb,30,people marching,test\n",
    }
    for name, text in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    videos = [
        *(f"ucf101/UCF-101/Biking/v_Biking_g{group}_c01.avi" for group in ("08", "01")),
        *(f"activitynet/v_{name}.mp4" for name in "ab"),
        *(f"vggsound/{name}.mp4" for name in ("a_000001", "b_000030")),
    ]
    for name in videos:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(video)
    pack(
        f"vggsound:{root / 'vggsound'}",
        root / "shards",
        Settings(),
        workers=0,
        shard_size=10**6,
        max_unreadable=0,
    )
    return {name: f"{name}:{root / name}" for name in ("ucf101", "activitynet", "vggsound", "shards")}


@pytest.mark.parametrize(
    "name",
    [
        *("folder", "folder with options", "csv", "manifest", "clips", "synthetic"),
        *("ucf101", "activitynet", "vggsound", "shards"),
    ],
)
def test_built_in_sources_keep_it(places, name):
    report = check_dataset(places[name])
    assert [verdict.state for verdict in report.verdicts] == ["ok"] * len(kit.check.names), str(report)
