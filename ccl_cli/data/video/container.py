"""Media files through PyAV: containers, streams, packets and frames, and errors as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import av
import av.logging
import numpy as np
from av.stream import Disposition

from ccl_cli.data.video.faults import blaming_video, is_of_the_machine
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

    from ccl_cli.data.video.storage import Location

# Each worker decodes one video at a time, one worker per core.
THREADS = 1
# A damaged header can claim any size, so check it before memory is allocated.
MAX_SIDE = 16_384
MAX_PIXELS = 2**26
MAX_PACKETS = 20_000_000
# From PyAV 17 on, scaling uses all cores by default, and has an option for it.
SCALING: dict[str, Any] = {"threads": THREADS} if int(av.__version__.split(".")[0]) >= 17 else {}
SILENCE = 1e-4  # a track without a sample of this size is silent

av.logging.set_level(None)  # the errors below say the same as FFmpeg's own lines


@contextmanager
def open_container(path: Location, mp4: BinaryIO | None = None) -> Iterator[InputContainer]:
    """Open a media file, or the bytes of an mp4 file, which errors call ``path``.

    Raises:
        DataError: the file is not a media file, or an error is raised inside the block.
    """
    # Open only this file: a playlist that poses as a video could name other files and servers.
    # PyAV 15 crashes if the option is also given to the streams.
    options = {"protocol_whitelist": "none" if mp4 else "file"}
    if mp4:  # without it, FFmpeg decodes frames to measure their rate, which a shard's record contains
        options["fpsprobesize"] = "0"
    file: Any = mp4 or f"file:{path}"
    form = "mp4" if mp4 else None
    with blaming_video(path, "is not a complete media file"):
        container = av.open(file, format=form, container_options=options, metadata_errors="replace")
    with blaming_video(path), container:
        yield container


def best_stream(container: InputContainer, kind: Literal["video", "audio"]) -> Any:
    """The stream that a player would choose, or None. A cover picture is not a video.

    Raises:
        DataError: there is no decoder for the stream.
    """
    stream: Any = container.streams.best(kind)
    if stream is None or (kind == "video" and stream.disposition & Disposition.attached_pic):
        return None
    if stream.codec_context is None:
        name = container.name.removeprefix("file:")
        raise DataError(f"The {kind} stream of '{name}' is in a format that cannot be decoded.")
    stream.codec_context.thread_count = THREADS
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def packets_of(container: InputContainer, *streams: Any) -> Iterator[Any]:
    """Yield packets with data. A truncated file ends early without an error."""
    try:
        for packet in islice(container.demux(*streams), MAX_PACKETS):
            if packet.size:  # an empty packet means the end of the file to a decoder
                yield packet
    except IndexError:
        pass  # a damaged MPEG file declares another stream in its middle
    except av.FFmpegError as error:
        if is_of_the_machine(error):
            raise


def decoded(stream: Any, packets: Iterable[Any]) -> Iterator[Any]:
    """Yield frames in presentation order. Packets that cannot be decoded are skipped."""
    for packet in chain(packets, [None]):
        with suppress(av.FFmpegError):
            yield from stream.decode(packet)


def channels(frame: Any) -> NDArray[np.floating[Any]]:
    """[C, n] samples of a sound frame in [-1, 1]."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "u":
        return np.asarray(samples.astype(np.float32) / 128 - 1)
    if samples.dtype.kind == "i":
        return np.asarray(samples / -float(np.iinfo(samples.dtype).min))
    return np.asarray(samples)
