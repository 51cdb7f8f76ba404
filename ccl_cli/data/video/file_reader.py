"""A video in a file of its own, through PyAV.

Frame ``k`` of a file is the k-th frame that decoding it from the start yields. Reading any stretch gives
exactly those frames: by a seek where the file's timestamps prove right, else by decoding from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import dropwhile, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter

from ccl_cli.data.video.audio_decoder import decode_audio
from ccl_cli.data.video.container import SCALING, best_stream, decoded, open_container, packets_of
from ccl_cli.data.video.file_metadata import read_metadata
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

# Decoders that heed a change of skip_frame between packets; AV1's keeps the first value.
_SKIPPING = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}
# Frames up to a key frame that are decoded sooner than it is sought. Of 8 segments of a UCF101 clip, with a
# key frame every 12 frames, that takes a third of the time.
_SEEK = 16

Opener = Callable[[], AbstractContextManager["InputContainer"]]


class FileReader:
    """A media file; see :class:`ccl_cli.data.video.reader.VideoReader`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = read_metadata(path)

    def frames(self, numbers: Sequence[int], *, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """Frames by decoding; a DataError where the file cannot be opened."""
        return decode_frames(partial(open_container, self.path), self.metadata, numbers, ToImage(short_side))

    def audio(self, start: float, stop: float) -> tuple[NDArray[np.float32], int]:
        """Samples by decoding; a DataError where the track cannot be decoded."""
        if self.metadata.audio is None:
            raise DataError(f"'{self.path}' has no sound track.")
        return decode_audio(self.path, self.metadata.audio, self.metadata.origin, start, stop)


def decode_frames(
    open_file: Opener, metadata: VideoMetadata, numbers: Sequence[int], to_image: ToImage
) -> Iterator[NDArray[np.uint8]]:
    """Decode some frames; from the first one that seeking does not find, decode the file from its start.

    Args:
        open_file: Opens the container, at its start.
        metadata: Of the video.
        numbers: Of the frames, ascending.
        to_image: Turns decoded frames into pictures.
    """
    done = 0
    if metadata.seekable and len(metadata.keys):
        with open_file() as container:
            for number, frame in zip(numbers, _sought(container, metadata, numbers), strict=False):
                if frame.pts != metadata.pts[number]:
                    break
                yield to_image(frame)
                done += 1
    if rest := set(numbers[done:]):
        with open_file() as container:
            video = best_stream(container, "video")
            frames = decoded(video, packets_of(container, video))
            for number, frame in enumerate(islice(frames, max(rest) + 1)):
                if number in rest:
                    yield to_image(frame)


def _sought(container: InputContainer, metadata: VideoMetadata, numbers: Sequence[int]) -> Iterator[Any]:
    """The frames by their timestamps, decoded from key frames; no more where one of these is not found."""
    video = best_stream(container, "video")
    for key, part in _parts(metadata, numbers):
        if key < 0:
            return
        key_pts, key_dts = metadata.keys[key].tolist()
        with suppress(av.FFmpegError):  # an AVI without its index cannot seek
            container.seek(key_dts, stream=video)
        packets = _skipping(video, _from(key_pts, packets_of(container, video)), set(part))
        rest = iter(part)
        wanted = next(rest)
        for frame in decoded(video, packets):
            if frame.pts == key_pts and not frame.key_frame:
                return
            if frame.pts is not None and frame.pts >= wanted:
                yield frame
                if (following := next(rest, None)) is None:
                    break
                wanted = following


def _from(pts: int, packets: Iterator[Any]) -> Iterator[Any]:
    return dropwhile(lambda packet: packet.pts != pts, packets)


def _parts(metadata: VideoMetadata, numbers: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """What is decoded in one go: the key frame to begin with, -1 if there is none, and timestamps."""
    places = np.asarray(numbers)
    pts = metadata.pts[places]
    keys = np.searchsorted(metadata.keys[:, 0], pts, side="right") - 1
    saved = np.searchsorted(metadata.pts, metadata.keys[keys[1:], 0]) - places[:-1]
    cuts = [0, *(np.flatnonzero(saved > _SEEK) + 1).tolist(), len(numbers)]
    for begin, end in pairwise(cuts):
        yield int(keys[begin]), pts[begin:end].tolist()


def _skipping(video: Any, packets: Iterator[Any], wanted: Collection[int]) -> Iterator[Any]:
    """Tell the decoder to leave out frames that are not wanted and that no other frame refers to."""
    codec = video.codec_context
    able = codec.name in _SKIPPING
    for packet in packets:
        if able:
            codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
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
