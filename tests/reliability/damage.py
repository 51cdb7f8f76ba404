"""Media files damaged on purpose, each a function of its seed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# What writers of headers get wrong, and attackers do not: big-endian (mp4, mkv) and little-endian (avi, wav).
EXTREMES = (
    0,
    1,
    2,
    0x7F,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    20_000,
    1_000_000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
FORMS = {
    "mp4": ("mp4", "libx264", "aac", {}),
    "fast.mp4": ("mp4", "libx264", "aac", {"movflags": "faststart"}),
    "parts.mp4": ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv": ("matroska", "libx264", "aac", {}),
    "webm": ("webm", "libvpx", "libopus", {}),
    "avi": ("avi", "mpeg4", "libmp3lame", {}),
    "mpg": ("mpeg", "mpeg2video", "mp2", {}),
    "ts": ("mpegts", "libx264", "aac", {}),
    "wav": ("wav", None, "pcm_s16le", {}),
    "ogg": ("ogg", None, "libopus", {}),
    "h264": ("h264", "libx264", None, {}),
}


def small_copy(source: Path, target: Path, form: str, frames: int = 20) -> Path:
    """The first frames of a real clip at 96x64 with their sound, in another format."""
    container, video_codec, audio_codec, options = FORMS[form]
    with av.open(str(source)) as given, av.open(str(target), "w", format=container, options=options) as made:
        video = made.add_stream(video_codec, rate=25) if video_codec else None
        if video:
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            video.codec_context.gop_size, video.codec_context.thread_count = 8, 1
        audio = resampler = None
        if audio_codec:
            audio = made.add_stream(
                audio_codec, rate=48000 if "opus" in audio_codec else 44100, layout="mono"
            )
            context = audio.codec_context
            resampler = av.AudioResampler(
                context.format, "mono", context.sample_rate, context.frame_size or 1024
            )
        count = 0
        for frame in given.decode(
            *[each for each in (given.streams.best("video"), given.streams.best("audio")) if each]
        ):
            if isinstance(frame, av.AudioFrame):
                if resampler and frame.time < frames / 25:
                    frame.pts = None
                    for part in resampler.resample(frame):
                        made.mux(audio.encode(part))
            elif count < frames:
                if video:
                    picture = frame.reformat(96, 64, "yuv420p")
                    picture.pts, picture.time_base, picture.pict_type = count, Fraction(1, 25), 0
                    made.mux(video.encode(picture))
                count += 1
            elif frame.time > 2 * frames / 25:
                break
        for stream in filter(None, (video, audio)):
            made.mux(stream.encode(None))
    return target


def cut(content: bytearray, rng: np.random.Generator) -> None:
    """Cut off anywhere, more often near the ends."""
    del content[int(len(content) * rng.beta(0.6, 0.6)) :]


def flip(content: bytearray, rng: np.random.Generator) -> None:
    """Turn over some bits anywhere."""
    for at in rng.integers(0, len(content), 2 ** int(rng.integers(0, 9))):
        content[at] ^= 1 << int(rng.integers(0, 8))


def header(content: bytearray, rng: np.random.Generator) -> None:
    """Set fields of the header to extremes."""
    spans = [(0, min(len(content), 600))]
    if (at := content.find(b"moov")) > 0:
        spans += [(at, min(len(content), at + 2500))] * 3
    for _ in range(int(rng.integers(1, 5))):
        low, high = spans[rng.integers(len(spans))]
        value, width = int(rng.choice(EXTREMES)), int(rng.choice([1, 2, 4, 8]))
        at = int(rng.integers(low, max(low + 1, high - width)))
        order = "big" if rng.random() < 0.6 else "little"
        content[at : at + width] = (value % 256**width).to_bytes(width, order)


def field(content: bytearray, rng: np.random.Generator) -> None:
    """Set fields that FFmpeg is known to read: of mp4 boxes, RIFF chunks, the codec's own header."""
    names = (
        b"mvhd", b"tkhd", b"mdhd", b"elst", b"stsd", b"stts", b"stsz", b"stsc", b"stco", b"stss", b"ctts",
        b"hdlr", b"avc1", b"avcC", b"mp4a", b"esds", b"trun", b"tfhd", b"tfdt", b"mvex", b"trex",
        b"avih", b"strh", b"strf", b"idx1", b"movi", b"fmt ", b"data", b"vorbis", b"OpusHead",
        b"\x16\x54\xae\x6b", b"\x15\x49\xa9\x66", b"\x1c\x53\xbb\x6b", b"\x44\x89", b"\xb0", b"\xba", b"\xe0",
        b"\x00\x00\x01\xb3", b"\x00\x00\x01\xba",
    )  # fmt: skip
    there = [at for name in names if (at := content.find(name)) >= 0]
    for _ in range(int(rng.integers(1, 4))):
        if there:
            at = there[rng.integers(len(there))] + 4 + int(rng.integers(0, 60))
            width = int(rng.choice([2, 4, 8]))
            value = int(rng.choice(EXTREMES)) % 256**width
            content[at : at + width] = value.to_bytes(width, "big" if rng.random() < 0.6 else "little")


def pieces(content: bytearray, rng: np.random.Generator) -> None:
    """Leave out, repeat, blank or overwrite a piece."""
    size = int(len(content) * rng.beta(0.5, 4)) + 1
    at = int(rng.integers(0, max(1, len(content) - size)))
    piece = bytes(content[at : at + size])
    match int(rng.integers(4)):
        case 0:
            del content[at : at + size]
        case 1:
            content[at:at] = piece
        case 2:
            content[at : at + size] = bytes(size)
        case 3:
            content[at : at + size] = rng.bytes(size)


DAMAGES: dict[str, Callable[[bytearray, np.random.Generator], None]] = {
    "cut off": cut,
    "bits turned over": flip,
    "header bytes set": header,
    "header fields set": field,
    "pieces lost, repeated, blank": pieces,
}


def damaged(content: bytes, kind: str, seed: int) -> bytes:
    """A variant; the same for the same seed."""
    variant = bytearray(content)
    DAMAGES[kind](variant, np.random.default_rng(seed))
    return bytes(variant)


def with_field(content: bytes, after: bytes, offset: int, value: int, form: str = ">I") -> bytes:
    """A copy with one number set, counted from the end of the first ``after``."""
    at = content.index(after) + len(after) + offset
    return content[:at] + struct.pack(form, value) + content[at + struct.calcsize(form) :]


def sequence_header(stream: bytes, width: int, height: int) -> bytes:
    """A copy of a bare H.264 stream whose first sequence parameter set claims another size."""
    golomb = "".join(
        _golomb(value) for value in (0, 0, 2, 1)
    )  # its number, frame numbers, their order, references
    sides = _golomb(width // 16 - 1) + _golomb(height // 16 - 1)
    bits = golomb + "0" + sides + "1100" + "1"  # no gaps; frames only, direct 8x8, no crop, no more; the end
    bits += "0" * (-len(bits) % 8)
    made = b"\x67\x42\xc0\x3e" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    begin = stream.index(b"\x00\x00\x01\x67") + 3
    end = stream.index(b"\x00\x00\x01", begin)
    return stream[:begin] + made + stream[end:]


def _golomb(value: int) -> str:
    bits = f"{value + 1:b}"
    return "0" * (len(bits) - 1) + bits
