"""Caches of embeddings: what training reads from them, and what becomes of them when things go wrong."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch

from ccl_cli.__main__ import main
from ccl_cli.config.load import to_yaml
from ccl_cli.config.recipe import Cache, Recipe
from ccl_cli.data.clips.window import Window
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.reader import read_frames
from ccl_cli.errors import DataError, RecipeError, SystemSetupError, UsageError
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.teachers import embedding_cache
from ccl_cli.teachers.embedding_cache import Cached
from ccl_cli.training.build import load_teachers
from ccl_cli.training.cache import build
from ccl_cli.training.cache.build import build_cache
from ccl_cli.training.cache.checks import check_cache
from ccl_cli.training.cache.keys import key_of
from ccl_cli.training.cache.read import CachedRows
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.train import train
from tests.data.media import damage_sound
from tests.helpers.plugin_folder import install
from tests.reliability.processes import in_two_processes
from tests.training.runs import lines, small_recipe, summary

AUDIO, IMAGE = "audio:small?weights=random&seconds=2.0", "image:small?weights=random"
SOUND = {"present": 8, "silent": 2, "no track": 2}
CPU = torch.device("cpu")


def recipe(clips_folder, **changes) -> Recipe:
    base = {"teachers": [AUDIO, IMAGE], "train": {"epochs": 2}, "cache": {"views": 4}}
    return small_recipe(f"folder:{clips_folder / 'set'}", base, changes)


def built(experiment):
    """Caches of all the recipe's teachers, by name; with the data set and the teachers."""
    manifest, teachers = load_data(experiment.data), load_teachers(experiment.teachers)
    made = {
        name: build_cache(name, each, manifest, experiment, set_up("fp32")) for name, each in teachers.items()
    }
    return made, manifest, teachers


def model(run):
    return (run / "model.safetensors").read_bytes()


def used(run):
    return {name: record["cached"] for name, record in summary(run)["teachers"].items()}


# ---- which caches training reads


def test_a_track_that_is_shorter_than_the_teacher_hears_gives_the_very_same_run(clips_folder, monkeypatch):
    monkeypatch.setattr(build, "PART", 5)  # three parts
    sound = recipe(clips_folder, teachers=AUDIO)
    live = train(sound)
    made, *_ = built(sound)
    assert made["audio:small"].counts() == SOUND
    cached, off = train(sound), train(recipe(clips_folder, teachers=AUDIO, cache={"use": "off"}))
    assert lines(cached) == lines(live) == lines(off)
    assert [used(run)["audio:small"] for run in (live, cached, off)] == [None, "track", None]
    assert all(summary(run)["data"]["modalities"] == {"audio": SOUND} for run in (live, cached, off))


def test_a_cache_that_does_not_hold_all_that_a_live_teacher_sees_is_read_where_it_is_asked_for(
    clips_folder, caplog
):
    """The clips have 20 frames and 1 s of sound."""
    short = {"teachers": ["audio:small?weights=random&seconds=0.25", IMAGE]}
    live = train(recipe(clips_folder, **short))
    made, *_ = built(recipe(clips_folder, **short))
    with caplog.at_level(logging.WARNING, "ccl"):
        auto = train(recipe(clips_folder, **short))
    assert lines(auto) == lines(live)
    assert used(auto) == {"audio:small": None, "image:small": None}
    assert [each.header.inexact for each in made.values()] == [10, 12]
    for each in made.values():
        (line,) = (record.message for record in caplog.records if each.folder.name in record.message)
        assert f"for {each.header.inexact} of 12 videos" in line
        assert "cache.use=build" in line
    asked = recipe(clips_folder, **short, cache={"use": "build"})
    assert used(train(asked)) == {"audio:small": "track", "image:small": "4 frames at 48 px"}
    assert asked.hash() != recipe(clips_folder, **short).hash()


def test_a_cache_of_every_frame_of_videos_as_short_as_a_clip_is_read(clips_folder):
    every = {"teachers": IMAGE, "cache": {"views": 20}, "train": {"max_steps": 1}}
    made, *_ = built(recipe(clips_folder, **every))
    assert made["image:small"].header.inexact == 0
    assert used(train(recipe(clips_folder, **every, clip={"frames": 20}))) == {
        "image:small": "20 frames at 48 px"
    }
    # A shorter clip has frames of its own, of which a live teacher sees one.
    assert used(train(recipe(clips_folder, **every))) == {"image:small": None}


def test_a_stretch_that_the_teacher_hears_whole_is_exact(clips_folder, tmp_path):
    paths = sorted((clips_folder / "set" / "train").rglob("*.mp4"))
    rows = [f"{path},{path.parent.name},0.3,0.5" for path in paths]
    (tmp_path / "short.csv").write_text("\n".join(["path,label,start,end", *rows]) + "\n")
    teacher = "audio:small?weights=random&seconds=0.25"
    made, *_ = built(recipe(clips_folder, data=f"csv:{tmp_path / 'short.csv'}", teachers=teacher))
    assert made["audio:small"].header.inexact == 0


def test_a_video_that_only_the_teacher_cannot_read_is_not_as_with_a_live_one(clips_folder, tmp_path):
    """A live teacher keeps it out of training; from a cache, it has no sound."""
    data = shutil.copytree(clips_folder / "set", tmp_path / "set")
    mute, broken = data / "train" / "right" / "3.mp4", data / "train" / "down" / "3.mp4"
    damage_sound(mute)
    broken.write_text("not a video")
    made, manifest, _ = built(recipe(clips_folder, data=f"folder:{data}", teachers=AUDIO))
    cached, paths = made["audio:small"], [video.path for video in manifest.cacheable]
    assert {paths[place] for place in cached.header.unreadable} == {mute, broken}
    assert cached.header.inexact == 1
    place = paths.index(broken)
    assert cached.state(place) == "unreadable"
    value, present = cached.rows(np.array([place]), np.array([0]))
    assert not present
    assert not value.any()


def test_the_views_are_single_frames_spread_over_the_video_and_all_are_drawn(clips_folder):
    experiment = recipe(clips_folder, teachers=IMAGE)
    made, manifest, teachers = built(experiment)
    teacher, video, train_split = teachers["image:small"], manifest.cacheable[3], manifest.split("train")
    expected = []
    for frame in (2, 7, 12, 17):  # the middles of four quarters of 20 frames
        window = Window(video, experiment.clip)
        window.frames = read_frames(video.path, frame, 1).frames
        expected.append(teacher(teacher.preprocess(window)[None])[0])
    rows, again = (CachedRows(made["image:small"], manifest, train_split, seed=0) for _ in range(2))
    row = torch.tensor([[v.id for v in train_split].index(video.id)])
    seen = set()
    for epoch in range(40):
        (value,) = rows.embedding(row, epoch, CPU).value
        seen |= {n for n, each in enumerate(expected) if torch.allclose(each, value, atol=1e-6)}
    assert seen == {0, 1, 2, 3}
    assert torch.equal(*(each.embedding(row, 7, CPU).value for each in (rows, again)))


SIGHT = "video:sight"
SIGHT_SOURCE = """
import torch
from ccl_cli.teachers import Teacher


class Brightness:
    shape, dtype, views = (8,), torch.float32, "clip"

    def __repr__(self):
        return "Brightness()"

    def __call__(self, window):
        return window.frames.float().mean(dim=(1, 2, 3))[:8]


class Sight(Teacher):
    modality, dim, preprocess = "video", 8, Brightness()

    @classmethod
    def from_spec(cls, spec):
        return cls().freeze()

    def forward(self, x):
        return x
"""


def test_a_teacher_of_clips_is_shown_clips_spread_over_the_video(clips_folder, tmp_path, monkeypatch):
    entries = "[ccl.teachers]\nvideo.sight = sight:Sight\n"
    install(tmp_path / "site", "sight", entries, modules={"sight": SIGHT_SOURCE})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    experiment = recipe(clips_folder, teachers=SIGHT, cache={"use": "build"})
    made, manifest, teachers = built(experiment)
    cached, video = made[SIGHT], manifest.cacheable[3]
    for view, first in enumerate((0, 4, 8, 12)):  # from end to end
        expected = read_frames(video.path, first, 8).frames.float().mean(dim=(1, 2, 3))
        torch.testing.assert_close(cached.rows(np.array([3]), np.array([view]))[0][0], expected)
    assert (cached.header.inexact, cached.header.frames) == (12, 0)
    assert used(train(experiment)) == {SIGHT: "4 clips of 8 frames at 48 px"}
    assert used(train(recipe(clips_folder, teachers=SIGHT))) == {SIGHT: None}
    clips = ({"frames": 9}, {"short_side": 24}, {"stride": 2}, {"fps": 9}, {"sampling": "segments"})
    for change in (*({"clip": clip} for clip in clips), {"cache": {"views": 5}}):
        other = recipe(clips_folder, teachers=SIGHT, **change)
        assert key_of(SIGHT, teachers[SIGHT], manifest, other.cache, other.clip) != cached.header.key
    whole = recipe(clips_folder, teachers=SIGHT, clip={"frames": 20})  # one clip, the whole video
    live = train(whole)
    built(whole)
    cached = train(whole)
    assert used(cached) == {SIGHT: "4 clips of 20 frames at 48 px"}
    assert lines(cached) == lines(live)


def test_a_recipe_can_ask_for_caches_and_what_is_held_out_does_not_matter(clips_folder):
    run = train(recipe(clips_folder, cache={"use": "build"}))
    assert used(run) == {"audio:small": "track", "image:small": "4 frames at 48 px"}
    folders = list(embedding_cache.caches())
    held_out = train(recipe(clips_folder, cache={"use": "build"}, holdout=0.4))
    assert used(held_out) == used(run)
    assert list(embedding_cache.caches()) == folders


def test_half_precision_is_half_the_size_and_rounds(clips_folder, monkeypatch):
    single, *_ = built(recipe(clips_folder))
    experiment = recipe(clips_folder, cache={"precision": "fp16", "use": "build"})
    half, manifest, teachers = built(experiment)
    places = np.arange(len(manifest.cacheable))
    for name, each in half.items():
        assert each.size == single[name].size / 2
        value, present = each.rows(places, np.zeros_like(places))
        exact, same = single[name].rows(places, np.zeros_like(places))
        assert value.dtype == torch.float32
        assert torch.equal(value, exact.half().float())
        assert torch.equal(present, same)
        assert check_cache(each, teachers[name], manifest, experiment) == []
    assert used(train(experiment)) == {"audio:small": "track, fp16", "image:small": "4 frames at 48 px, fp16"}
    embed_views = build.embed_views
    monkeypatch.setattr(build, "embed_views", lambda *inputs: 1e12 * embed_views(*inputs))
    with pytest.raises(DataError, match="too large for half precision"):
        built(recipe(clips_folder, teachers=IMAGE, cache={"precision": "fp16", "views": 5}))


def test_what_does_not_fit_is_not_used(clips_folder, tmp_path, caplog):
    data = shutil.copytree(clips_folder / "set", tmp_path / "set")
    experiment = recipe(clips_folder, data=f"folder:{data}", teachers=IMAGE)
    made, manifest, (teacher,) = (*built(experiment)[:2], load_teachers(experiment.teachers).values())
    first = made["image:small"].header.key

    def changed(teacher=teacher, **by):
        cache, clip = Cache(views=by.get("views", 4)), experiment.clip.model_copy(update=by)
        return key_of("image:small", teacher, manifest, cache, clip).differs_from(first)

    (other,) = load_teachers(experiment.teachers).values()
    with torch.no_grad():
        next(iter(other.parameters())).mul_(1.001)
    assert changed() == ""
    assert changed(teacher=other) == "other weights or settings"
    assert changed(views=5) == "5 frames at 48 px"
    assert changed(short_side=24) == "4 frames at 24 px"
    with (data / "train" / "right" / "3.mp4").open("ab") as file:
        file.write(b"more")
    with caplog.at_level(logging.WARNING, "ccl"):
        run = train(experiment)
    assert f"'{first.folder.name}' is not used: it was built for other files" in caplog.text
    assert used(run) == {"image:small": None}


def test_without_any_cache_no_file_is_looked_at(clips_folder, monkeypatch):
    monkeypatch.setattr("ccl_cli.data.manifest.contents_hash", lambda path: pytest.fail(f"{path} was read"))
    train(recipe(clips_folder, train={"max_steps": 1}))


@pytest.mark.slow
def test_a_resumed_run_keeps_to_what_it_began_with(clips_folder):
    every = {"cache": {"views": 20}, "clip": {"frames": 20}}  # all frames of each video
    whole = train(recipe(clips_folder, **every))
    begun_live = train(recipe(clips_folder, **every, train={"max_steps": 3}))
    made, *_ = built(recipe(clips_folder, **every))
    assert model(train(recipe(clips_folder, **every), resume=begun_live)) == model(whole)
    cached = train(recipe(clips_folder, **every))
    assert lines(cached) != lines(whole)  # other frames are drawn, of the same ones
    begun_cached = train(recipe(clips_folder, **every, train={"max_steps": 3}))
    gone = shutil.move(made["image:small"].folder, "elsewhere")
    with pytest.raises(UsageError, match=r"started with embeddings of image:small .* which does not exist"):
        train(recipe(clips_folder, **every), resume=begun_cached)
    shutil.move(gone, made["image:small"].folder)
    assert model(train(recipe(clips_folder, **every), resume=begun_cached)) == model(cached)


def test_a_dry_run_says_what_would_be_read(clips_folder, capsys):
    def out(use):
        train(recipe(clips_folder, cache={"use": use}), dry_run=True)
        return capsys.readouterr().out

    assert "RANDOM WEIGHTS, cached first (track)" in out("build")
    built(recipe(clips_folder))
    assert "RANDOM WEIGHTS, read from the cache (4 frames at 48 px)" in out("build")
    # More of the frames could be seen than are in the cache.
    assert [out(use).count("read from the cache") for use in ("build", "auto", "off")] == [2, 1, 0]


def find(state, end):
    """The tensor whose name ends so, in a checkpoint."""
    return next(value for name, value in state["distiller"].items() if name.endswith(end))


def test_anchors_are_embeddings_of_the_cache_as_the_method_sees_them(clips_folder):
    method = {"queue_kl": {"anchors": "sample", "size": 5}}
    sampled = {"teachers": IMAGE, "method": method, "standardize": "center", "train": {"max_steps": 2}}
    with pytest.raises(RecipeError, match="needs a cache of the embeddings of image:small"):
        train(recipe(clips_folder, **sampled))
    run = train(recipe(clips_folder, **sampled, cache={"use": "build"}))
    state = torch.load(next(run.glob("state/*.pt")), weights_only=True)
    made, manifest, _ = built(recipe(clips_folder, **sampled))
    cached = CachedRows(made["image:small"], manifest, manifest.split("train"), seed=0)
    value = cached.embedding(find(state, "heads.0.rows"), 0, CPU).value - cached.moments().mean.float()
    torch.testing.assert_close(find(state, "heads.0.queue"), unit_rows(value))


@pytest.mark.parametrize(
    ("teacher", "method"),
    [
        (IMAGE, {"ifd": {"stages": "auto"}}),  # wants inner stages
        ("image:resnet18?weights=random&input=student_clip&size=32", "ccl"),
        ("image:precomputed@{clips}/image.npz", "ccl"),
    ],
)
def test_a_teacher_that_cannot_be_cached_trains_live(clips_folder, teacher, method):
    changes = {"teachers": teacher.format(clips=clips_folder), "method": method, "cache": {"use": "build"}}
    experiment = recipe(clips_folder, **changes, train={"max_steps": 1})
    assert list(used(train(experiment)).values()) == [None]
    assert not list(embedding_cache.caches())
    if method == "ccl":
        with pytest.raises(DataError, match="cannot be cached"):
            built(experiment)


# ---- damage, locks and processes


def test_damage_is_found(clips_folder):
    experiment = recipe(clips_folder, teachers=IMAGE, cache={"use": "build"})
    made, manifest, teachers = built(experiment)
    cached, teacher = made["image:small"], teachers["image:small"]
    assert check_cache(cached, teacher, manifest, experiment) == []
    path, header = cached.folder / embedding_cache.EMBEDDING, cached.folder / embedding_cache.HEADER
    content = path.read_bytes()
    path.write_bytes(content[:-4] + b"\0\0\0\x40")
    faults = check_cache(Cached.open(cached.folder), teacher, manifest, experiment)
    assert faults == [
        "its bytes are not those that were written",
        f"'{manifest.cacheable[-1].id}' has another embedding now",
    ]
    path.write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"is damaged: .*`ccl cache prune"):
        train(experiment)
    path.write_bytes(content)
    header.write_text(header.read_text().replace("ccl-embeddings-2", "ccl-embeddings-9"))
    with pytest.raises(DataError, match="is damaged: format: Input should be"):
        Cached.open(cached.folder)


def test_parts_are_kept_unless_they_are_damaged(clips_folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(5, "Input/output error")

    experiment = recipe(clips_folder, teachers=AUDIO)
    for place, name in (np.lib.format, "write_array_header_1_0"), (build, "safe_open"):
        with monkeypatch.context() as faulty:
            faulty.setattr(place, name, refuse)
            with pytest.raises(SystemSetupError, match="Input/output error"):
                built(experiment)
        (part,) = embedding_cache.unfinished()[0].glob("part-*.safetensors")
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(DataError, match="was damaged and has been removed"):
        built(experiment)
    assert not part.exists()
    part.write_bytes(content)
    monkeypatch.setattr(build, "embed_views", None)  # nothing is embedded again
    made, *_ = built(experiment)
    assert made["audio:small"].counts() == SOUND
    assert not embedding_cache.unfinished()
    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(SystemSetupError, match="Input/output error"):
        built(experiment)


@pytest.mark.slow
def test_two_processes_build_the_cache_of_one(clips_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    paths = sorted((clips_folder / "set" / "train").rglob("*.mp4"))
    rows = [f"{paths[n % 12]},{paths[n % 12].parent.name},{n / 1000:.3f}" for n in range(600)]  # three parts
    (tmp_path / "long.csv").write_text("\n".join(["path,label,start", *rows]) + "\n")
    changes = {"data": f"csv:{tmp_path / 'long.csv'}", "teachers": IMAGE, "cache": {"views": 2}}
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe(clips_folder, **changes)))
    words = ["cache", "build", "--recipe", str(tmp_path / "recipe.yaml")]
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "1"))
    assert main(words) == 0
    in_two_processes(tmp_path, *words, CCL_HOME=tmp_path / "2")
    arrays = [[path.read_bytes() for path in sorted((tmp_path / n).rglob("*.npy"))] for n in "12"]
    assert len(arrays[0]) == 2
    assert arrays[0] == arrays[1]
