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

    from ccl_cli.data.video.reader import open_video

    try:
        reader = open_video(path)
        first, count = reader.metadata.frame_range(start, end)
        frame = next(reader.frames([first + count // 2], short_side=_SHORT_SIDE), None)
    except CclError:  # missing or damaged file: other pictures are still shown
        return None
    if frame is None:
        return None
    image = Image.fromarray(np.ascontiguousarray(frame))
    file = io.BytesIO()
    ImageOps.fit(image, (min(image.size),) * 2).save(file, "JPEG", quality=82)
    return file.getvalue()
