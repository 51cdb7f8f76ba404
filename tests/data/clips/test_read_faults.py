"""Errors that no decoder was expected to raise: all who read videos take them for the same fault."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.clips.dataset import TeacherClips, TrainingClips, clip_loader
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.clips.evaluation_clips import EvaluationClips
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.file_reader import FileReader
from ccl_cli.errors import SystemSetupError
from ccl_cli.teachers.waveform import Waveform

CLIP = Clip(frames=4, size=32, short_side=36)
SOUND = {"audio:a": Waveform(15_000, 0.5)}  # a rate at which no other test has heard the clips
GONE = SystemSetupError("The server is gone.")


def train(source, folder):
    videos = load_data(source).split("train")
    draws = [[Draw(0, 0, row)] for row in range(3, 6)]
    clips = TrainingClips(videos, CLIP, SOUND, 0)
    batches = list(clip_loader(clips, draws, workers=0, pin_memory=False))
    assert batches[0].batch.rows.tolist() == [4]  # stands in for it
    return {videos[row].id: reason for each in batches for row, reason in each.unreadable.items()}


def cache(source, folder):
    videos = load_data(source).split("train")
    batches = clip_loader(TeacherClips(videos, CLIP, SOUND), [[2, 3, 4]], workers=0, pin_memory=False)
    return {videos[row].id: why["audio:a"] for row, why in next(batches).unreadable.items()}


def evaluate(source, folder):
    videos = load_data(source).split("train")
    chunks = read_batches(EvaluationClips(videos, CLIP, Evaluation(), chunk=9), 0, batch_size=None)
    return {videos[row].id: reason for chunk in chunks for row, reason in chunk.unreadable.items()}


def shards(source, folder):
    return pack(source, folder, Settings(), workers=0, shard_size=10**9, max_unreadable=0.1)["unreadable"]


READERS = [(train, "frames"), (train, "audio"), (cache, "audio"), (evaluate, "frames"), (shards, "frames")]


@pytest.fixture
def fail(clips_folder, monkeypatch):
    """Let a method of a reader fail on one training video."""

    def patch(method, error):
        real = getattr(FileReader, method)

        def failing(self, *args, **options):
            if self.path == clips_folder / "set/train/down/3.mp4":
                raise error
            return real(self, *args, **options)

        monkeypatch.setattr(FileReader, method, failing)
        return f"folder:{clips_folder / 'set'}"

    return patch


@pytest.mark.parametrize(("read", "method"), READERS)
def test_an_error_that_nobody_has_foreseen_costs_its_video(fail, tmp_path, read, method):
    reasons = read(fail(method, ZeroDivisionError("odd")), tmp_path / "p")
    assert list(reasons) == ["train/down/3"]
    assert reasons["train/down/3"].endswith("/set/train/down/3.mp4' cannot be read: ZeroDivisionError: odd.")


@pytest.mark.parametrize(("read", "method"), READERS)
@pytest.mark.parametrize(
    "error", [GONE, MemoryError(), OSError(errno.EMFILE, os.strerror(errno.EMFILE))], ids=str
)
def test_an_error_of_the_machine_costs_no_video(fail, tmp_path, read, method, error):
    with pytest.raises(SystemSetupError, match=r"^The server is gone|3\.mp4' cannot be read: (Mem|Too many)"):
        read(fail(method, error), tmp_path / "p")


@pytest.mark.slow
def test_an_error_of_the_machine_comes_out_of_another_process_as_it_was(tmp_path):
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "1.mp4").write_bytes(b"1")
    dataset = Gone(load_data(f"folder:{tmp_path / 'set'}").videos, CLIP, Evaluation(), chunk=9)
    with pytest.raises(SystemSetupError) as caught:
        list(read_batches(dataset, 1, batch_size=None))
    assert caught.value.message == GONE.message


class Gone(EvaluationClips):
    def _views(self, row):
        raise GONE
        yield torch.empty(0)
