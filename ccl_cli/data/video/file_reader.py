"""A video in a file of its own, through PyAV.

Frame ``k`` of a file is the k-th frame that decoding it from the start yields. Reading any stretch gives
exactly those frames: by a seek where the file's timestamps prove right, else by decoding from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import dropwhile, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter

from ccl_cli.data.video.audio_decoder import decode_audio
from ccl_cli.data.video.container import SCALING, best_stream, decoded, open_container, packets_of
from ccl_cli.data.video.file_metadata import read_metadata
from ccl_cli.data.video.metadata import Frame, VideoMetadata
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

# Decoders that heed a change of skip_frame between packets; AV1's keeps the first value.
_SKIPPING = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}

Opener = Callable[[], AbstractContextManager["InputContainer"]]


class FileReader:
    """A media file; see :class:`ccl_cli.data.video.reader.VideoReader`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = read_metadata(path)

    def frames(self, first: int, count: int, *, short_side: int, seek: bool = True) -> Iterator[Frame]:
        """Frames by decoding; a DataError where the file cannot be opened."""
        frames = decode_frames(
            partial(open_container, self.path), self.metadata, first, ToImage(short_side), seek
        )
        return islice(frames, count)

    def audio(self, start: float, stop: float) -> tuple[NDArray[np.float32], int]:
        """Samples by decoding; a DataError where the track cannot be decoded."""
        if self.metadata.audio is None:
            raise DataError(f"'{self.path}' has no sound track.")
        return decode_audio(self.path, self.metadata.audio, self.metadata.origin, start, stop)


def decode_frames(
    open_file: Opener, metadata: VideoMetadata, first: int, to_image: ToImage, seek: bool
) -> Iterator[Frame]:
    """All frames from ``first`` on.

    Args:
        open_file: Opens the container, at its start.
        metadata: Of the video.
        first: Index of the first frame.
        to_image: Turns decoded frames into pictures.
        seek: Whether to seek to the first frame where that can be checked.
    """
    key = int(np.searchsorted(metadata.keys[:, 0], metadata.pts[first], side="right")) - 1
    if seek and metadata.seekable and key >= 0:
        with open_file() as container:
            frames = _sought(container, metadata, first, *metadata.keys[key].tolist())
            head = next(frames, None)
            if head is not None and head.pts == metadata.pts[first]:
                yield head.pts, to_image(head)
                yield from ((frame.pts, to_image(frame)) for frame in frames)
                return
    with open_file() as container:
        video = best_stream(container, "video")
        for frame in islice(decoded(video, packets_of(container, video)), first, None):
            yield frame.pts, to_image(frame)


def _sought(
    container: InputContainer, metadata: VideoMetadata, first: int, key_pts: int, key_dts: int
) -> Iterator[Any]:
    """Frames from ``first`` on, decoded from one key frame; nothing if that frame is not found."""
    video = best_stream(container, "video")
    with suppress(av.FFmpegError):  # an AVI without its index cannot seek
        container.seek(key_dts, stream=video)
    packets = dropwhile(lambda packet: packet.pts != key_pts, packets_of(container, video))
    for frame in decoded(video, _skipping(video, packets, metadata.pts[first])):
        if frame.pts == key_pts and not frame.key_frame:
            return
        if frame.pts is not None and frame.pts >= metadata.pts[first]:
            yield frame


def _skipping(video: Any, packets: Iterator[Any], until: int) -> Iterator[Any]:
    """Tell the decoder to leave out frames before ``until`` that no other frame refers to."""
    codec = video.codec_context
    able = codec.name in _SKIPPING
    for packet in packets:
        if able:
            codec.skip_frame = "NONREF" if packet.pts < until else "DEFAULT"
        yield packet


class ToImage:
    """Decoded frame to an upright [H, W, 3] uint8 array whose short side is at most ``short_side``."""

    def __init__(self, short_side: int) -> None:
        self.short_side = short_side
        self.reformatter = VideoReformatter()  # one for all frames: setting it up costs more than using it
        self.size: tuple[int, int] | None = None
        self.form = "rgb24"

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """The picture of one frame of a video."""
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
