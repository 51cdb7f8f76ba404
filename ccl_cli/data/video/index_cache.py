"""Indexes of videos stay for the next epoch, in a bounded amount of memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from threading import Lock
from typing import Generic, ParamSpec

from ccl_cli.data.video.metadata import VideoInfo

# 34 MB of timestamps in each process: all of UCF101 (2.5 million frames), or two days of video.
FRAMES = 2**22
_ITSELF = 128  # what an index takes besides its frames' timestamps, in frames

P = ParamSpec("P")


class KeptIndexes(Generic[P]):
    """Decorate a function that makes an index: those used last are kept, at most ``FRAMES`` frames of them.

    A number of indexes would bound nothing: one may hold a hundred frames, or those of a day.
    """

    def __init__(self, make: Callable[P, VideoInfo]) -> None:
        update_wrapper(self, make)
        self.make = make
        self.held: dict[tuple[object, ...], VideoInfo] = {}  # the one used last at the end
        self.room = FRAMES
        self.lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> VideoInfo:
        """The index, made if it is not kept. The arguments are what tells indexes apart."""
        key = (args, tuple(kwargs.items()))
        with self.lock:
            info = self._taken(key)
            if info is not None:
                self._put(key, info)
                return info
        info = self.make(*args, **kwargs)
        with self.lock:
            self._taken(key)  # another thread may have made it meanwhile
            self._put(key, info)
        return info

    def cache_clear(self) -> None:
        """Forget all."""
        with self.lock:
            self.held, self.room = {}, FRAMES

    def _taken(self, key: tuple[object, ...]) -> VideoInfo | None:
        info = self.held.pop(key, None)
        if info is not None:
            self.room += _weight(info)
        return info

    def _put(self, key: tuple[object, ...], info: VideoInfo) -> None:
        self.held[key] = info
        self.room -= _weight(info)
        while self.room < 0 and len(self.held) > 1:
            self._taken(next(iter(self.held)))


def _weight(info: VideoInfo) -> int:
    return info.frames + _ITSELF
