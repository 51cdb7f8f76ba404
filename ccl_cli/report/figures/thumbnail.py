"""Thumbnail of a video."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from ccl_cli.errors import CclError

if TYPE_CHECKING:
    from ccl_cli.data.video.storage import Location


_SHORT_SIDE = 128  # pixels of the decoded frame


def thumbnail(path: Location, start: float | None = None, end: float | None = None) -> bytes | None:
    """Return the middle frame of a video as a square JPEG; None if it cannot be read.

    Args:
        path: Video.
        start: Start of the used part, in seconds.
        end: End of the used part, in seconds.
    """
    from PIL import Image, ImageOps

    from ccl_cli.data.video.reader import open_video, read_frames

    try:
        first, count = open_video(path).metadata.frame_range(start, end)
        frames = read_frames(path, first + count // 2, 1, short_side=_SHORT_SIDE).frames
    except CclError:  # missing or damaged file: other pictures are still shown
        return None
    image = Image.fromarray(np.ascontiguousarray(frames[0].numpy()))
    file = io.BytesIO()
    ImageOps.fit(image, (min(image.size),) * 2).save(file, "JPEG", quality=82)
    return file.getvalue()
