"""Videos that cannot be opened; readers stay for the next epoch, in a bounded amount of memory."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import av
import numpy as np
import pytest

from ccl_cli.data.video import reader
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.errors import DataError, SystemSetupError


def make(frames: int) -> SimpleNamespace:
    none = np.zeros((0, 2), np.int64)
    metadata = VideoMetadata(Path("a"), np.arange(frames), none, frames, Fraction(1), 0, 8, 8, True, None)
    return SimpleNamespace(metadata=metadata)


@pytest.fixture
def cache(monkeypatch):
    monkeypatch.setattr(reader, "CACHED_FRAMES", 10_000)
    return reader._ReaderCache()


def names(cache) -> list[str]:
    return [key[0] for key in cache.readers]


def test_the_readers_used_last_stay_as_far_as_their_frames_fit(cache):
    first = cache.get(("a",), lambda: make(4000))
    cache.get(("b",), lambda: make(4000))
    assert cache.get(("a",), lambda: pytest.fail("made again")) is first
    cache.get(("c",), lambda: make(4000))  # in place of b, which was used before a
    assert names(cache) == ["a", "c"]
    # Larger than all room: it stays alone, so that its clips are not indexed one by one.
    cache.get(("long",), lambda: make(50_000))
    assert names(cache) == ["long"]
    for number in range(200):
        cache.get((number,), lambda: make(0))
    assert len(names(cache)) == 10_000 // 128
    cache.clear()
    assert (names(cache), cache.frames) == ([], 0)


def test_threads_share_it(cache):
    def use(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 20, 2000).tolist():
            frames = 300 * number
            assert cache.get((number,), lambda frames=frames: make(frames)).metadata.frames == frames

    threads = [Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.frames == sum(each.metadata.frames + 128 for each in cache.readers.values()) <= 10_000


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (ZeroDivisionError("odd"), DataError, "ZeroDivisionError: odd"),
        (OSError(errno.EMFILE, "Too many open files"), SystemSetupError, "Too many open files"),
        (av.error.OSError(errno.EMFILE, "Too many open files"), SystemSetupError, "Too many open files"),
    ],
)
def test_what_cannot_be_opened_is_a_sentence(tmp_path, monkeypatch, error, kind, sentence):
    def fails(*args, **options):
        raise error

    (tmp_path / "a.mp4").write_bytes(b"a")
    monkeypatch.setattr(av, "open", fails)
    with pytest.raises(kind, match=rf"a\.mp4' cannot be read: {sentence}\."):
        reader.open_video(tmp_path / "a.mp4")
