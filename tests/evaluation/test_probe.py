"""Probes of embeddings: made ones whose answer is known, the authors' own, and those of real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError, UsageError
from ccl_cli.evaluation.classifiers import (
    PENALTIES,
    LabelledEmbeddings,
    centre_and_normalise,
    predict_knn,
    probe_classes,
    probe_knn,
    probe_linear,
    recall_interval,
)
from ccl_cli.evaluation.probe import HELD_OUT, probe, probe_teachers, split_videos
from ccl_cli.evaluation.teacher_embeddings import embed_videos
from ccl_cli.evaluation.verdicts import verdict
from ccl_cli.training.build import load_teachers
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher


def clusters(counts, spread, dim=16):
    """Training and test embeddings around one corner per class, and their labels."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(len(counts)), counts)
    corners = np.eye(len(counts), dim)[labels]
    pair = (corners + spread * rng.normal(size=corners.shape) for _ in range(2))
    return [LabelledEmbeddings(each.astype(np.float32), labels) for each in centre_and_normalise(*pair)]


@pytest.mark.parametrize(("k", "expected"), [(2, 1), (3, 0), (99, 0)])
def test_the_nearer_neighbours_decide_a_tie_and_no_more(k, expected):
    rows = np.array([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]], np.float32)
    assert predict_knn(LabelledEmbeddings(rows, np.array([1, 0, 0])), rows[:1], k).tolist() == [expected]


def test_the_penalty_is_chosen_on_the_training_videos_alone():
    train, test = clusters([20] * 4, 0.5)
    validation = np.stack([np.arange(80) % 3 == 0, np.arange(80) % 3 == 1])
    probed = probe_linear(train, test, validation)
    assert probed["penalty"] in PENALTIES
    assert probed["linear"] > 70
    shuffled = LabelledEmbeddings(-test.embeddings, test.labels[::-1])
    assert probe_linear(train, shuffled, validation)["penalty"] == probed["penalty"]


def test_without_a_video_or_a_class_to_choose_on_the_penalty_is_the_default():
    train, _ = clusters([3, 3], 0.1)
    for share in (0, 1):
        probed = probe_linear(train, train, np.full((2, 6), share, bool))
        assert probed == {"linear": 100, "penalty": 0.01}
    one_class = LabelledEmbeddings(train.embeddings[:3], train.labels[:3])
    assert probe_linear(one_class, train, np.zeros((1, 3), bool)) == {"linear": 50, "penalty": 0.01}


def test_verdicts_follow_from_exact_intervals():
    assert recall_interval(7, 10) == pytest.approx((0.34755, 0.93326), abs=1e-5)  # Clopper and Pearson's
    assert recall_interval(0, 0) == (0.0, 1.0)
    assert [verdict(low, 0.05) for low in (0.05, 0.06, 0.28, 0.29)] == ["not", "weakly", "weakly", "highly"]
    labels = np.array([0] * 90 + [1] * 10)  # one answer to everything is no knowledge
    large, small, absent = probe_classes(np.zeros(100, int), labels, labels, "abc").values()
    assert (large["recall"], large["chance"], large["verdict"]) == (100, 100, "not")
    assert (small["recall"], small["verdict"]) == (0, "not")
    assert (absent["videos"], absent["recall"], absent["verdict"]) == (0, None, None)


def test_verdicts_on_noise_and_on_knowledge():
    """Of 60 classes that nothing tells, the 95 % interval lets a few through at most."""
    names = [f"c{n}" for n in range(60)]
    knn = probe_knn(*clusters([20] * 60, 1e6, dim=60), names, 10)
    assert len(knn["verdicts"]["not"]) >= 56
    assert knn["knn"] < 4
    assert knn["chance"] == pytest.approx(100 / 60)
    sharp = probe_knn(*clusters([20] * 5, 0.05), names[:5], 10)
    assert (sharp["knn"], sharp["verdicts"]["highly"]) == (100, names[:5])


def manifest(**counts):
    """Counts of two classes' videos by split; two clips of a group belong together."""
    videos = [
        Video(f"{split}/{name}/v_{name}_g{n // 2}_c{n % 2}", Path(f"/x/{split}{name}{n}.mp4"), label, split)
        for split, each in counts.items()
        for label, name in enumerate("ab")
        for n in range(each)
    ]
    return Manifest("made", ("a", "b"), tuple(videos))


@pytest.mark.parametrize(
    ("counts", "asked", "split", "sizes"),
    [
        ({"train": 10, "val": 3, "test": 4}, None, "test", (20, 8)),
        ({"train": 10, "val": 3, "test": 4}, "val", "val", (20, 6)),
        ({"train": 10, "val": 3}, None, "val", (20, 6)),
        ({"train": 16}, None, HELD_OUT, (24, 8)),
    ],
)
def test_the_test_videos_and_the_rounds_of_validation(counts, asked, split, sizes):
    splits = split_videos(manifest(**counts), asked)
    assert (splits.split, len(splits.train), len(splits.test)) == (split, *sizes)
    assert not {video.id for video in splits.train} & {video.id for video in splits.test}
    assert len({tuple(held_out.tolist()) for held_out in splits.validation}) == len(splits.validation) > 1
    groups = np.array([video.id.rpartition("_")[0] for video in splits.train])
    for held_out in splits.validation:
        assert 0 < held_out.sum() < len(splits.train) / 2
        assert not {*groups[held_out]} & {*groups[~held_out]}


def test_nothing_to_test_on():
    one = Manifest("made", ("a",), manifest(train=1).videos[:1])
    for known, split, words in (
        (manifest(train=4), "test", "has no test split"),
        (manifest(train=1), None, "too small to hold out test videos"),
        (one, None, "one class"),
    ):
        with pytest.raises(DataError, match=words):
            split_videos(known, split)


def tables(folder, known, *makes):
    """The data set as one types it, and teachers that look up what each function makes of a video."""
    lines = [f"{video.id}.mp4,{known.classes[video.label]},{video.split}" for video in known.videos]
    (folder / "set.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    teachers = []
    for modality, make in zip(("audio", "image"), makes, strict=False):
        rows = {video.id: make(video) for video in known.videos}
        table = {key: np.asarray(row, np.float32) for key, row in rows.items() if row is not None}
        np.savez(folder / f"{modality}.npz", **table)
        teachers.append(f"{modality}:precomputed@{folder / f'{modality}.npz'}")
    return f"csv:{folder / 'set.csv'}", teachers


def test_a_pair_knows_what_either_knows_and_absent_videos_are_counted(tmp_path):
    """One teacher tells the first bit of the class, the other the second; no file is opened."""
    made, rng = manifest(train=60, test=60), np.random.default_rng(0)
    videos = [
        Video(video.id, video.path, 2 * video.label + number // 2 % 2, video.split)
        for number, video in enumerate(made.videos)
    ]
    made = Manifest("made", tuple("abcd"), (*videos, Video("train/d/silent", Path("/x/s.mp4"), 3, "train")))

    def one(video):
        return None if "silent" in video.id else 3 * (video.label // 2) + rng.normal(size=5)

    data, teachers = tables(tmp_path, made, one, lambda v: 3 * (v.label % 2) + rng.normal(size=5))
    result = probe_teachers(data, teachers, workers=0)
    *single, pair = result["probes"]
    assert min(pair["knn"], pair["linear"]) > 90
    assert max(each[figure] for each in single for figure in ("knn", "linear")) < 70
    assert pair["train"] == {"present": 120, "videos": 121}
    assert pair["per_class"]["a"]["videos"] == 30
    assert result["teachers"]["audio:precomputed"]["videos"] == {"present": 240, "absent": 1}
    assert result["teachers"]["audio:precomputed"]["unreadable"] == {}


def test_a_pair_that_shares_no_video(tmp_path, caplog):
    halves = (lambda v, half=half: np.arange(3.0) if half in v.id else None for half in ("_c0", "_c1"))
    data, teachers = tables(tmp_path, manifest(train=6, test=4), *halves)
    pair = probe_teachers(data, teachers, workers=0, k=1)["probes"][-1]
    assert pair["train"]["present"] == 0
    assert "knn" not in pair
    assert "no video has both modalities" in caplog.text


def test_teachers_that_have_nothing_to_say(tmp_path):
    made = manifest(train=4, test=2)

    def refusal(make, *others):
        data, teachers = tables(tmp_path, made, make)
        with pytest.raises(DataError) as error:
            probe_teachers(data, others or teachers, workers=0)
        return str(error.value)

    only_train = refusal(lambda video: np.ones(3) if video.split == "train" else None)
    assert "no embedding for any of the 4 test videos" in only_train
    np.savez(tmp_path / "other.npz", other=np.ones(3, np.float32))
    others = refusal(lambda video: np.ones(3), f"audio:precomputed@{tmp_path / 'other.npz'}")
    assert "no embedding for any of the 12 videos" in others
    assert "cannot be read" in refusal(lambda video: np.ones(3), "image:small?weights=random")
    assert "finite" in refusal(lambda video: [np.nan, 1.0])
    with pytest.raises(UsageError, match="No teacher"):
        probe_teachers(None, [])


@pytest.mark.slow
def test_real_files(clips_folder):
    """Frames and sound of the middle; the table's rows are looked up beside them."""
    names = ["audio:small?weights=random", "image:small?weights=random"]
    names.append(f"audio:precomputed@{clips_folder / 'audio.npz'}")
    data = f"folder:{clips_folder / 'set'}"
    result, again = (probe_teachers(data, names, k=3, batch_size=n, workers=w) for n, w in ((4, 1), (5, 0)))
    assert result["teachers"]["audio:small"]["videos"] == {"present": 14, "no track": 2, "silent": 2}
    assert result["teachers"]["audio:small"]["random_weights"]
    assert result["teachers"]["image:small"]["videos"] == {"present": 18}
    entry = {tuple(each["teachers"]): each for each in result["probes"]}
    assert len(entry) == 6
    assert entry["audio:small",]["knn"] == 100  # each class has a tone of its own
    assert entry["audio:small", "image:small"]["train"] == {"present": 8, "videos": 12}
    for one, other in zip(result["probes"], again["probes"], strict=True):
        assert (one["knn"], one["verdicts"]) == (other["knn"], other["verdicts"])


@pytest.fixture
def ucf51(shared):
    table = shared / "data/features/ucf51_cnn14_emb512.npz"
    return f"ucf51?videos=false&lists={shared}/data/splits/ucfTrainTestlist", f"audio:precomputed@{table}"


def test_what_the_authors_audio_embeddings_tell_of_ucf51(ucf51):
    data, teacher = ucf51
    splits = split_videos(load_data(data), None)
    embedded = embed_videos(load_teachers([teacher]), splits.videos, workers=0)
    entry = probe(["audio:precomputed"], splits, embedded, with_linear=False)
    assert entry["train"] == {"present": 4893, "videos": 4901}
    assert entry["test"] == {"present": 1944, "videos": 1944}
    assert entry["knn"] == pytest.approx(44.3, abs=0.3)
    verdicts = entry["verdicts"]
    assert sum(map(len, verdicts.values())) == 51
    # The examples of the paper's Figure 6.
    assert {"PlayingCello", "Typing", "PlayingSitar", "PlayingDhol"} <= set(verdicts["highly"])
    assert "WritingOnBoard" in verdicts["weakly"]
    assert {"BodyWeightSquats", "BalanceBeam", "HandstandWalking"} <= set(verdicts["not"])


@pytest.mark.long  # half a minute of logistic regressions
def test_a_linear_probe_of_the_authors_audio_embeddings_of_ucf51(ucf51):
    (entry,) = probe_teachers(ucf51[0], [ucf51[1]], workers=0)["probes"]
    assert entry["linear"] == pytest.approx(46.0, abs=1.0)
    assert entry["penalty"] == 0.01


@pytest.mark.long  # writes a thousand clips and fits an audio teacher
def test_the_dial_of_the_synthetic_world_is_read_off(tmp_path):
    """Twelve actions of one motion each, so that each has a sound event of its own."""
    size = "size=24&noise=1"
    sounds = f"synthetic:{tmp_path / 'sounds'}?labels=sounds&clips=24&test_clips=6&{size}"
    file, options = tmp_path / "audio.safetensors", FitOptions(epochs=20, workers=0)
    assert fit_teacher(parse_model("audio:small"), sounds, file, options).held_out.accuracy > 0.8

    def verdicts(dial):
        options = "object_groups=1&motion_groups=12&clips=20&val_clips=0&test_clips=15"
        data = f"synthetic:{tmp_path / str(dial)}?{options}&correspondence={dial}&{size}"
        (entry,) = probe_teachers(data, [f"audio:small@{file}"], workers=0)["probes"]
        return [entry["per_class"][f"0123456789-motion{number}"]["verdict"] for number in range(1, 13)]

    assert verdicts(1).count("highly") >= 10
    assert verdicts(0).count("not") >= 10
    thirds = verdicts(0.5)
    assert thirds[0::3].count("highly") >= 3
    assert thirds[1::3].count("not") <= 1
    assert thirds[2::3].count("not") >= 2
