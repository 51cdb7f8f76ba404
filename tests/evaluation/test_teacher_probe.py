"""Probes of embeddings: made ones whose answer is known, the authors' own, and those of real files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.data.sources.ucf import load_ucf51
from ccl_cli.errors import DataError, UsageError
from ccl_cli.evaluation import teacher_probe
from ccl_cli.evaluation.classifiers import (
    PENALTIES,
    LabelledEmbeddings,
    center_and_normalize,
    predict_knn,
    probe_classes,
    probe_knn,
    probe_linear,
    recall_interval,
)
from ccl_cli.evaluation.teacher_probe import HELD_OUT, embed_splits, probe_teachers, split_videos
from ccl_cli.evaluation.verdicts import verdict
from ccl_cli.training.build import load_teachers
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher


def clusters(counts, spread, seed=0, dim=6):
    """Embeddings around one corner per class, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = rng.normal(size=(len(labels), dim))
    return LabelledEmbeddings((np.eye(len(counts), dim)[labels] + spread * noise).astype(np.float32), labels)


def prepared(train, test):
    pair = center_and_normalize(train.embeddings, test.embeddings)
    return [LabelledEmbeddings(each, old.labels) for each, old in zip(pair, (train, test), strict=True)]


# ---- the splits


@pytest.mark.parametrize(("k", "expected"), [(2, 1), (3, 0), (99, 0)])
def test_the_nearer_neighbours_decide_a_tie_and_no_more(k, expected):
    train = LabelledEmbeddings(
        np.array([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]], np.float32), np.array([1, 0, 0])
    )
    assert predict_knn(train, np.array([[1.0, 0.0]], np.float32), k).tolist() == [expected]


def test_the_penalty_is_chosen_on_the_training_videos_alone():
    train, test = prepared(clusters([20] * 4, 0.5, dim=16), clusters([20] * 4, 0.5, seed=1, dim=16))
    validation = np.stack([np.arange(80) % 3 == 0, np.arange(80) % 3 == 1])
    probed = probe_linear(train, test, validation)
    shuffled = LabelledEmbeddings(-test.embeddings, test.labels[::-1])
    assert probed.penalty in PENALTIES
    assert probed.accuracy > 0.7
    assert probe_linear(train, shuffled, validation).penalty == probed.penalty
    # Labels without a pattern cannot be learnt.
    noise = np.random.default_rng(0).permutation(train.labels)
    assert probe_linear(LabelledEmbeddings(train.embeddings, noise), test, validation).accuracy < 0.5


@pytest.mark.parametrize("share", [0, 1])
def test_without_a_video_to_choose_on_the_penalty_is_the_default(share):
    train = clusters([3, 3], 0.1)
    probed = probe_linear(train, train, np.full((2, 6), share, bool))
    assert (probed.accuracy, probed.penalty) == (1.0, 0.01)


def test_training_videos_of_one_class_predict_that_class():
    train, test = clusters([5], 0.1), clusters([5, 5], 0.1)
    assert probe_linear(train, test, np.zeros((1, 5), bool)).accuracy == 0.5


def test_intervals_are_exact():
    # Clopper and Pearson's, by their definition: the tail of the binomial at the end is 2.5 %.
    assert recall_interval(7, 10) == pytest.approx((0.34755, 0.93326), abs=1e-5)
    assert recall_interval(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert recall_interval(10, 10) == (pytest.approx(0.025**0.1), 1.0)
    assert recall_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("low", "chance", "expected"),
    [
        (0.05, 0.05, "not"),
        (0.06, 0.05, "weakly"),
        (0.28, 0.05, "weakly"),
        (0.29, 0.05, "highly"),
        (0.6, 0.5, "weakly"),
        (0.63, 0.5, "highly"),
        (1.0, 1.0, "not"),
    ],
)
def test_the_thresholds(low, chance, expected):
    assert verdict(low, chance) == expected


def test_one_answer_to_everything_is_no_knowledge():
    labels = np.array([0] * 90 + [1] * 10)
    large, small, absent = probe_classes(np.zeros(100, int), labels, labels, 3)
    assert (large.recall, large.chance, large.verdict) == (1.0, 1.0, "not")
    assert (small.recall, small.verdict) == (0.0, "not")
    assert (absent.videos, absent.recall, absent.verdict) == (0, None, None)


def test_verdicts_on_noise_and_on_knowledge():
    """Of 60 classes that nothing tells, the 95 % interval lets a few through at most."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(60), 20)
    noise = [LabelledEmbeddings(rng.normal(size=(1200, 8)), labels) for _ in range(2)]
    knn = probe_knn(*prepared(*noise), 60, 10)
    assert sum(each.verdict != "not" for each in knn.classes) <= 4
    assert knn.accuracy < 0.04
    assert knn.chance == pytest.approx(1 / 60)
    splits = prepared(clusters([20] * 5, 0.05), clusters([20] * 5, 0.05, seed=1))
    sharp = probe_knn(*splits, 5, 10)
    assert (sharp.accuracy, probe_linear(*splits, (np.arange(100) % 5 == 0)[None]).accuracy) == (1.0, 1.0)
    assert {each.verdict for each in sharp.classes} == {"highly"}


def test_a_pair_knows_what_either_knows(tmp_path):
    """One teacher tells the first bit of the class, the other the second."""
    videos = [
        Video(f"{split}/{label}/{number}", Path(f"/x/{label}.mp4"), label, split)
        for split in ("train", "test")
        for label in range(4)
        for number in range(30)
    ]
    made = Manifest("made", tuple("abcd"), tuple(videos))
    rng = np.random.default_rng(0)
    data, one = tables(tmp_path, made, lambda v: 3 * (v.label // 2) + rng.normal(size=5))
    _, other = tables(tmp_path, made, lambda v: 3 * (v.label % 2) + rng.normal(size=5), "u.npz")
    *single, pair = probe_teachers(data, [one, other.replace("audio", "image")], workers=0)["probes"]
    assert min(pair["knn"], pair["linear"]) > 90
    assert max(each[figure] for each in single for figure in ("knn", "linear")) < 70


# ---- which videos are for what


def manifest(**counts):
    """Counts of two classes' videos by split; ten clips of a group belong together."""
    videos = [
        Video(
            f"{split}/{name}/v_{name}_g{number // 2}_c{number % 2}",
            Path(f"/x/{split}/{name}/{number}.mp4"),
            label,
            split,
        )
        for split, each in counts.items()
        for label, name in enumerate("ab")
        for number in range(each)
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
    for held_out in splits.validation:
        assert 0 < held_out.sum() < len(splits.train) / 2
        chosen, rest = (
            {
                video.id.rpartition("_")[0]
                for video, out in zip(splits.train, held_out, strict=True)
                if out == wanted
            }
            for wanted in (True, False)
        )
        assert not chosen & rest


def test_nothing_to_test_on():
    with pytest.raises(DataError, match="has no test split"):
        split_videos(manifest(train=4), "test")
    with pytest.raises(DataError, match="too small to hold out test videos"):
        split_videos(manifest(train=1), None)
    with pytest.raises(DataError, match="one class"):
        split_videos(Manifest("made", ("a",), manifest(train=1).videos[:1]), None)


# ---- whole


def tables(folder, manifest_, make, name="t.npz"):
    """Embeddings of the videos that ``make`` has one for; the data set as one types it."""
    rows = {video.id: make(video) for video in manifest_.videos}
    rows = {key: np.asarray(row, np.float32) for key, row in rows.items() if row is not None}
    np.savez(folder / name, **rows)
    lines = [f"{video.id}.mp4,{video.label},{video.split}" for video in manifest_.videos]
    (folder / "set.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    return f"csv:{folder / 'set.csv'}", f"audio:precomputed@{folder / name}"


def test_no_file_is_opened_for_embeddings_that_are_there(tmp_path, caplog):
    rng = np.random.default_rng(0)
    data, teacher = tables(
        tmp_path,
        manifest(train=12, test=6),
        lambda video: None if "_g0_" in video.id else rng.normal(size=4) + 3 * video.label,
    )
    logging.getLogger("ccl").propagate = True
    result = probe_teachers(data, [teacher], workers=0, k=3)
    (entry,) = result["probes"]
    assert (entry["knn"], entry["linear"]) == (100, 100)
    assert entry["train"] == {"present": 20, "videos": 24}
    assert entry["test"] == {"present": 8, "videos": 12}
    assert result["teachers"]["audio:precomputed"]["videos"] == {"present": 28, "absent": 8}
    assert result["teachers"]["audio:precomputed"]["unreadable"] == {}
    assert entry["per_class"]["0"]["videos"] == 4


def test_tables_with_rows_that_are_not_finite_are_refused_with_their_names(tmp_path):
    rng = np.random.default_rng(0)
    made = manifest(train=12, test=6)
    data, _ = tables(tmp_path, made, lambda video: rng.normal(size=4) + 3 * video.label)
    for video in made.videos:
        file = tmp_path / "rows" / f"{video.id}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        bad = video.id.endswith("a_g1_c0")
        np.save(file, np.full(4, np.nan if bad else video.label, np.float32))
    with pytest.raises(DataError, match=r"2 embeddings.*: test/a/v_a_g1_c0, train/a/v_a_g1_c0\."):
        probe_teachers(data, [f"audio:precomputed@{tmp_path / 'rows'}"], workers=0, k=3)
    data, whole = tables(tmp_path, made, lambda video: [np.nan, 1.0])
    with pytest.raises(DataError, match="not finite numbers"):
        probe_teachers(data, [whole], workers=0)


def test_teachers_that_have_nothing_to_say(tmp_path):
    made = manifest(train=4, test=2)
    data, teacher = tables(tmp_path, made, lambda video: np.ones(3) if video.split == "train" else None)
    with pytest.raises(DataError, match="no embedding for any of the 4 test videos"):
        probe_teachers(data, [teacher], workers=0)
    np.savez(tmp_path / "t.npz", other=np.ones(3, np.float32))
    with pytest.raises(
        DataError, match=r"no embedding for any of the 12 videos.*such as 'train/a/v_a_g0_c0'"
    ):
        probe_teachers(data, [teacher], workers=0)
    with pytest.raises(DataError, match=r"any of the 8 training videos: .*cannot be read"):
        probe_teachers(data, ["image:small?weights=random"], workers=0)
    with pytest.raises(UsageError, match="No teacher"):
        probe_teachers(data, [])


def test_a_class_with_one_video_and_a_pair_that_shares_none(tmp_path, caplog):
    made = manifest(train=6, test=4)
    lonely = Video("train/c/only", Path("/x/c.mp4"), 2, "train")
    made = Manifest("made", ("a", "b", "c"), (*made.videos, lonely))
    rng = np.random.default_rng(0)
    data, one = tables(tmp_path, made, lambda v: rng.normal(size=3) if "_c0" in v.id or v is lonely else None)
    _, other = tables(tmp_path, made, lambda v: rng.normal(size=5) if "_c1" in v.id else None, "u.npz")
    with caplog.at_level("WARNING", "ccl"):
        result = probe_teachers(data, [one, other.replace("audio", "image")], workers=0, k=1)
    first, _, pair = result["probes"]
    assert first["per_class"]["2"]["verdict"] is None
    assert pair["train"]["present"] == 0
    assert "knn" not in pair
    assert "no video has both modalities" in caplog.text


@pytest.mark.slow
def test_real_files(clips_folder):
    """Frames and sound of the middle; the table's rows are looked up beside them."""
    names = [
        "audio:small?weights=random",
        "image:small?weights=random",
        f"audio:precomputed@{clips_folder / 'audio.npz'}",
    ]
    result = probe_teachers(f"folder:{clips_folder / 'set'}", names, workers=1, k=3)
    assert result["teachers"]["audio:small"]["videos"] == {"present": 14, "no track": 2, "silent": 2}
    assert result["teachers"]["audio:small"]["random_weights"]
    assert result["teachers"]["image:small"]["videos"] == {"present": 18}
    entry = {tuple(each["teachers"]): each for each in result["probes"]}
    assert len(entry) == 6
    assert entry["audio:small",]["knn"] == 100  # each class has a tone of its own
    assert entry["audio:small", "image:small"]["train"] == {"present": 8, "videos": 12}
    again = probe_teachers(f"folder:{clips_folder / 'set'}", names, workers=0, k=3, batch_size=5)
    for one, other in zip(result["probes"], again["probes"], strict=True):
        assert (one["teachers"], one["knn"], one["verdicts"]) == (
            other["teachers"],
            other["knn"],
            other["verdicts"],
        )


@pytest.fixture
def ucf51(shared):
    lists = shared / "data/splits/ucfTrainTestlist"
    table = shared / "data/features/ucf51_cnn14_emb512.npz"
    return f"ucf51?videos=false&lists={lists}", f"audio:precomputed@{table}"


def test_what_the_authors_audio_embeddings_tell_of_ucf51(ucf51):
    data, teacher = ucf51
    known = load_data(data)
    splits = split_videos(known, None)
    embedded = embed_splits(load_teachers([teacher]), splits, workers=0)
    entry = teacher_probe.probe(["audio:precomputed"], known, splits, embedded, with_linear=False)
    assert splits.split == "test"
    assert entry["train"] == {"present": 4893, "videos": 4901}
    assert entry["test"] == {"present": 1944, "videos": 1944}
    assert entry["knn"] == pytest.approx(44.3, abs=0.3)
    verdicts = entry["verdicts"]
    assert sum(map(len, verdicts.values())) == 51
    # The examples of the paper's Figure 6.
    assert "PlayingCello" in verdicts["highly"]
    assert "WritingOnBoard" in verdicts["weakly"]
    assert {"Typing", "PlayingSitar", "PlayingDhol"} <= set(verdicts["highly"])
    assert {"BodyWeightSquats", "BalanceBeam", "HandstandWalking"} <= set(verdicts["not"])


@pytest.mark.long
def test_a_linear_probe_of_the_authors_audio_embeddings_of_ucf51(ucf51):
    # slow: half a minute of logistic regressions
    data, teacher = ucf51
    (entry,) = probe_teachers(data, [teacher], workers=0)["probes"]
    assert entry["linear"] == pytest.approx(46.0, abs=1.0)
    assert entry["penalty"] == 0.01


def test_the_official_lists_are_enough_only_if_asked(shared):
    lists = str(shared / "data/splits/ucfTrainTestlist")
    assert len(load_ucf51("", lists=lists, videos=False).videos) == 6845
    with pytest.raises(DataError, match="lacks its videos"):
        load_ucf51("", lists=lists)


@pytest.mark.long
def test_the_dial_of_the_synthetic_world_is_read_off(tmp_path):
    """slow: writes a thousand clips and fits an audio teacher.

    Twelve actions of one motion each, so that each has a sound event of its own.
    """
    size = "size=24&noise=1"
    spec = parse_model("audio:small")
    sounds = f"synthetic:{tmp_path / 'sounds'}?labels=sounds&clips=24&test_clips=6&{size}"
    report = fit_teacher(spec, sounds, tmp_path / "audio.safetensors", FitOptions(epochs=20, workers=0))
    assert report.held_out.accuracy > 0.8

    names = [f"0123456789-motion{number}" for number in range(1, 13)]

    def verdicts(correspondence):
        options = f"object_groups=1&motion_groups=12&clips=20&val_clips=0&test_clips=15&correspondence={correspondence}&{size}"
        data = f"synthetic:{tmp_path / str(correspondence)}?{options}"
        result = probe_teachers(data, [f"audio:small@{report.path}"], workers=0)
        classes = result["probes"][0]["per_class"]
        return [classes[name]["verdict"] for name in names]

    always = verdicts(1)
    assert always.count("highly") >= 10
    never = verdicts(0)
    assert never.count("not") >= 10
    thirds = verdicts(0.5)
    assert thirds[0::3].count("highly") >= 3
    assert thirds[1::3].count("not") <= 1
    assert thirds[2::3].count("not") >= 2
