from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from threading import Thread

import numpy as np

from ccl_cli.data.video import index_cache
from ccl_cli.data.video.index_cache import KeptIndexes
from ccl_cli.data.video.metadata import VideoInfo


def index(name: str, frames: int) -> VideoInfo:
    none = np.zeros((0, 2), np.int64)
    return VideoInfo(Path(name), np.arange(frames), none, frames, Fraction(1), 0, 8, 8, True, None)


def held(indexes: KeptIndexes) -> list[str]:
    return [str(info.path) for info in indexes.held.values()]


def test_the_indexes_used_last_are_kept_as_far_as_their_frames_fit(monkeypatch):
    monkeypatch.setattr(index_cache, "FRAMES", 10_000)
    made = []
    indexes = KeptIndexes(lambda name, frames: made.append(name) or index(name, frames))
    first = indexes("a", 4000)
    indexes("b", 4000)
    assert indexes("a", 4000) is first
    indexes("c", 4000)  # in place of b, which was used before a
    assert held(indexes) == ["a", "c"]
    indexes(
        "long", 50_000
    )  # larger than all room: kept alone, so that its windows are not indexed one by one
    assert held(indexes) == ["long"]
    indexes("d", 100)
    assert held(indexes) == ["d"]
    assert made == ["a", "b", "c", "long", "d"]
    for number in range(200):
        indexes(str(number), 0)
    assert len(held(indexes)) == 10_000 // 128
    indexes.cache_clear()
    assert held(indexes) == []
    assert indexes.room == 10_000


def test_threads_share_it(monkeypatch):
    monkeypatch.setattr(index_cache, "FRAMES", 3000)
    indexes = KeptIndexes(index)

    def use(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for number in rng.integers(0, 20, 2000).tolist():
            assert indexes(str(number), 100 * number).frames == 100 * number

    threads = [Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = sum(info.frames + 128 for info in indexes.held.values())
    assert indexes.room == 3000 - left
    assert indexes.room >= 0
