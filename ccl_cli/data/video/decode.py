"""Windows of frames from video files.

Frame ``k`` of a file is the k-th frame that decoding it from the start yields. Reading any window gives
exactly those frames: by a seek where the file's timestamps prove right, else by decoding from the start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np
import torch
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from ccl_cli.data.video import packed
from ccl_cli.data.video.media import (
    MAX_SIDE,
    SCALING,
    best_stream,
    decoded,
    frame_range,
    index_video,
    opened,
    packets_of,
)
from ccl_cli.data.video.metadata import VideoInfo
from ccl_cli.data.video.storage import Location, Packed
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

__all__ = ["Clip", "VideoInfo", "frame_range", "frames_from", "index_video", "iter_windows", "read_frames"]

_SMALL = 2**17  # bytes of a video that stays decoded: opening such a file again takes longer than reading it
_KEPT = 256
# Decoders that heed a change of skip_frame between packets; AV1's keeps the first value.
_SKIPPING = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}


Frame = tuple[int | None, "NDArray[np.uint8]"]


class Clip(NamedTuple):
    """Consecutive frames.

    Attributes:
        frames: [T, H, W, 3] uint8 RGB, upright.
        start: Presentation time of the first frame, seconds on the file's clock.
        end: End of the last frame that is not a repetition, seconds.
    """

    frames: Tensor
    start: float
    end: float


def read_frames(path: Location, first: int, count: int, *, short_side: int = 256) -> Clip:
    """Read frames ``first`` to ``first + count``; where the video ends earlier they repeat from the first.

    Videos of at most 128 KiB of pixels stay decoded, the latest 256 in each process: at most 34 MB.

    Args:
        path: The file.
        first: Index of the first frame, in presentation order.
        count: Number of frames T.
        short_side: Larger frames are scaled down to this short side, pixels.

    Raises:
        DataError: unreadable, no such frame, or no frame of the window can be decoded.
    """
    info = index_video(path)
    wanted = info.pts[first : first + count].tolist()
    if first < 0 or not wanted:
        raise DataError(f"'{path}' has {info.frames} frames, so there is no frame {first}.")
    read = list(_frames(info, first, len(wanted), short_side))
    if info.seekable and [pts for pts, _ in read] != wanted:
        read = list(frames_from(info, first, len(wanted), short_side, seek=False))
    if not read:
        raise DataError(f"No frame of '{path}' from {info.time(first):.2f} s on can be decoded.")
    return _clip(info, [image for _, image in read], first, count)


def iter_windows(
    path: Location,
    length: int,
    stride: int,
    *,
    short_side: int = 256,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[Clip]:
    """Slide windows over a video in one pass, holding one window in memory.

    Windows start every ``stride`` frames until all frames are covered. The last one slides back so that it
    ends with the video; only a video that is shorter than a window repeats its frames.

    Args:
        path: The file.
        length: Frames per window.
        stride: Frames between starts.
        short_side: As in :func:`read_frames`.
        start: Seconds where to begin; None: the file's start.
        end: Seconds where to stop; None: the file's end.

    Raises:
        DataError: unreadable, or no frame can be decoded.
    """
    info = index_video(path)
    first, count = frame_range(info, start, end)
    images: deque[NDArray[np.uint8]] = deque(maxlen=length)
    begin = covered = seen = 0  # frames counted from ``first``; the next window begins at ``begin``
    for seen, (_, image) in enumerate(_frames(info, first, count, short_side), 1):
        images.append(image)
        if seen == begin + length:
            yield _clip(info, images, first + begin, length)
            begin, covered = begin + stride, seen
    if not seen:
        raise DataError(f"No frame of '{path}' can be decoded.")
    if seen > max(begin, covered):
        yield _clip(info, images, first + max(seen - length, 0), length)


def _frames(info: VideoInfo, first: int, count: int, short_side: int) -> Iterable[Frame]:
    if info.frames * info.height * info.width * 3 <= _SMALL:
        return _small_video(info, short_side)[first : first + count]
    return frames_from(info, first, count, short_side)


@lru_cache(maxsize=_KEPT)
def _small_video(info: VideoInfo, short_side: int) -> list[Frame]:
    return list(frames_from(info, 0, info.frames, short_side))


def frames_from(
    info: VideoInfo, first: int, count: int, short_side: int, *, seek: bool = True
) -> Iterator[Frame]:
    """Timestamps and upright pictures [H, W, 3] of at most ``count`` frames from ``first`` on.

    Args:
        info: The video.
        first: Index of the first frame.
        count: Number of frames.
        short_side: As in :func:`read_frames`.
        seek: Whether to seek to them where that can be checked.

    Raises:
        DataError: the file cannot be opened, or a packed frame is damaged.
    """
    if isinstance(info.path, Packed):
        yield from _packed_from(info, first, count, short_side, seek)
    else:
        yield from islice(_decoded_from(info, first, short_side, seek), count)


def _packed_from(info: VideoInfo, first: int, count: int, short_side: int, seek: bool) -> Iterator[Frame]:
    """Frames that may be as large as they were packed, or must be made smaller."""
    if info.jpegs is not None:
        frames: Iterator[Frame] = packed.jpegs_from(info, info.jpegs, first, count)
    else:
        frames = islice(_decoded_from(info, first, MAX_SIDE, seek), count)
    larger = min(info.height, info.width) > short_side
    to_image = _ToImage(short_side)
    for pts, image in frames:
        image = image[: info.height, : info.width]  # H.264 has even sides only: an odd one was padded
        if larger:
            image = to_image(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"))
        yield pts, image


def _decoded_from(info: VideoInfo, first: int, short_side: int, seek: bool) -> Iterator[Frame]:
    """All frames from ``first`` on."""
    key = int(np.searchsorted(info.keys[:, 0], info.pts[first], side="right")) - 1
    to_image = _ToImage(short_side)
    if seek and info.seekable and key >= 0:
        with opened(info.path) as container:
            frames = _sought(container, info, first, *info.keys[key].tolist())
            head = next(frames, None)
            if head is not None and head.pts == info.pts[first]:
                yield head.pts, to_image(head)
                yield from ((frame.pts, to_image(frame)) for frame in frames)
                return
    with opened(info.path) as container:
        video = best_stream(container, "video")
        for frame in islice(decoded(video, packets_of(container, video)), first, None):
            yield frame.pts, to_image(frame)


def _sought(
    container: InputContainer, info: VideoInfo, first: int, key_pts: int, key_dts: int
) -> Iterator[Any]:
    """Frames from ``first`` on, decoded from one key frame; nothing if that frame is not found."""
    video = best_stream(container, "video")
    with suppress(av.FFmpegError):  # an AVI without its index cannot seek
        container.seek(key_dts, stream=video)
    packets = dropwhile(lambda packet: packet.pts != key_pts, packets_of(container, video))
    for frame in decoded(video, _skipping(video, packets, info.pts[first])):
        if frame.pts == key_pts and not frame.key_frame:
            return
        if frame.pts is not None and frame.pts >= info.pts[first]:
            yield frame


def _skipping(video: Any, packets: Iterator[Any], until: int) -> Iterator[Any]:
    """Tell the decoder to leave out frames before ``until`` that no other frame refers to."""
    codec = video.codec_context
    able = codec.name in _SKIPPING
    for packet in packets:
        if able:
            codec.skip_frame = "NONREF" if packet.pts < until else "DEFAULT"
        yield packet


class _ToImage:
    """Decoded frame to an upright [H, W, 3] uint8 array whose short side is at most ``short_side``."""

    def __init__(self, short_side: int) -> None:
        self.short_side = short_side
        self.reformatter = VideoReformatter()  # one for all frames: setting it up costs more than using it
        self.size: tuple[int, int] | None = None
        self.form = "rgb24"

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        if self.size is None:  # the first frame decides, should the size change within the file
            scale = min(1.0, self.short_side / min(frame.width, frame.height))
            self.size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
            # Scaling to planes is nearly twice as fast as to pixels, and keeps more of the colour.
            self.form = "rgb24" if self.size == (frame.width, frame.height) else "gbrp"
        rgb = self.reformatter.reformat(
            frame, *self.size, format=self.form, interpolation=Interpolation.AREA, **SCALING
        )
        return _upright(np.asarray(rgb.to_ndarray(), np.uint8), frame)


def _upright(image: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Turn and mirror as the display matrix says: x' = a x + c y, y' = b x + d y."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _clip(info: VideoInfo, images: Iterable[NDArray[np.uint8]], first: int, count: int) -> Clip:
    images = list(images)
    frames = torch.from_numpy(np.stack(images))
    if len(images) < count:
        frames = frames[torch.arange(count) % len(images)]
    return Clip(frames, info.time(first), info.time(first + len(images)))
