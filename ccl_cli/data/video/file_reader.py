"""A video in a file of its own, through PyAV.

Frame ``k`` of a file is the k-th frame of decoding from the start. Frames are read by seeking if the file's
timestamps allow a check that they are the right ones, otherwise by decoding from the start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

# Decoders that apply a change of skip_frame between packets; that of AV1 keeps the first value.
_CAN_SKIP = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}
# Decode up to so many frames rather than seek to a later key frame. For 8 segments of a UCF101 clip, with
# a key frame every 12 frames, this takes a third of the time.
_SEEK = 16


class FileReader:
    """A media file; see :class:`ccl_cli.data.video.reader.VideoReader`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = read_metadata(path)

    def frames(self, numbers: Sequence[int], *, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """Decode by seeking; from the first frame that seeking misses, from the start of the file."""
        done, to_image = 0, ToImage(short_side)
        if self.metadata.seekable and len(self.metadata.keys):
            with open_container(self.path) as container:
                for number, frame in zip(numbers, self._seek_frames(container, numbers), strict=False):
                    if frame.pts != self.metadata.pts[number]:
                        break
                    yield to_image(frame)
                    done += 1
        if rest := set(numbers[done:]):
            with open_container(self.path) as container:
                video = best_stream(container, "video")
                frames = decoded(video, packets_of(container, video))
                for number, frame in enumerate(islice(frames, max(rest) + 1)):
                    if number in rest:
                        yield to_image(frame)

    def audio(self, start: float, stop: float) -> tuple[NDArray[np.float32], int]:
        """Decode sound. Raises a DataError if there is no track or it cannot be decoded."""
        if self.metadata.audio is None:
            raise DataError(f"'{self.path}' has no sound track.")
        return decode_audio(self.path, self.metadata.audio, self.metadata.origin, start, stop)

    def _seek_frames(self, container: InputContainer, numbers: Sequence[int]) -> Iterator[Any]:
        """Yield frames by timestamp, decoded from key frames, until a key frame is not where it should be."""
        video = best_stream(container, "video")
        for key, part in self._seeks(numbers):
            if key < 0:
                return
            key_pts, key_dts = self.metadata.keys[key].tolist()
            with suppress(av.FFmpegError):  # an AVI without its index cannot seek
                container.seek(key_dts, stream=video)
            packets = _needed(video, packets_of(container, video), key_pts, part)
            missing = deque(part)
            for frame in decoded(video, packets):
                if frame.pts == key_pts and not frame.key_frame:
                    return
                if frame.pts is not None and frame.pts >= missing[0]:
                    yield frame
                    missing.popleft()
                    if not missing:
                        break

    def _seeks(self, numbers: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Yield each seek: the index of a key frame (-1: none), and timestamps of the frames after it."""
        places, keys_pts = np.asarray(numbers), self.metadata.keys[:, 0]
        pts = self.metadata.pts[places]
        keys = np.searchsorted(keys_pts, pts, side="right") - 1
        saved = np.searchsorted(self.metadata.pts, keys_pts[keys[1:]]) - places[:-1]
        cuts = [0, *(np.flatnonzero(saved > _SEEK) + 1).tolist(), len(numbers)]
        for begin, end in pairwise(cuts):
            yield int(keys[begin]), pts[begin:end].tolist()


def _needed(video: Any, packets: Iterator[Any], key: int, wanted: Sequence[int]) -> Iterator[Any]:
    """Packets from the key frame on. The decoder skips unwanted frames that no other frame refers to."""
    codec, stamps = video.codec_context, set(wanted)
    able = codec.name in _CAN_SKIP
    for packet in dropwhile(lambda packet: packet.pts != key, packets):
        if able:
            codec.skip_frame = "DEFAULT" if packet.pts in stamps else "NONREF"
        yield packet


class ToImage:
    """Converts decoded frames to upright [H, W, 3] uint8 arrays, short side at most ``short_side``."""

    def __init__(self, short_side: int) -> None:
        self.short_side = short_side
        self.reformatter = VideoReformatter()  # one for all frames: creating it takes longer than using it
        self.size: tuple[int, int] | None = None
        self.form = "rgb24"

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Convert one frame; the first one determines the size."""
        if self.size is None:  # the size may change within a file
            scale = min(1.0, self.short_side / min(frame.width, frame.height))
            self.size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
            # Scaling to planes is nearly twice as fast as scaling to pixels, and preserves more colour.
            self.form = "rgb24" if self.size == (frame.width, frame.height) else "gbrp"
        rgb = self.reformatter.reformat(
            frame, *self.size, format=self.form, interpolation=Interpolation.AREA, **SCALING
        )
        return _upright(np.asarray(rgb.to_ndarray(), np.uint8), frame)


def _upright(image: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Rotate and mirror by the display matrix: x' = a x + c y, y' = b x + d y."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
