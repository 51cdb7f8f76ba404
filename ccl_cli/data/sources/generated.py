"""Data sets that ccl generates, in a folder of the user or in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import folder
from ccl_cli.errors import SystemSetupError
from ccl_cli.utils.files import claim_folder
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.processes import cores

# Sources that write their videos when they are listed, so they are never missing.
GENERATED = ("clips", "synthetic")


def generate(
    location: str, name: str, settings: Mapping[str, Any], writers: Mapping[str, Callable[[Path], None]]
) -> Manifest:
    """Write the missing videos, and list all of them.

    Args:
        location: Folder of the videos; "" for one in the cache, named after the settings.
        name: Name of the data set.
        settings: All settings that determine the videos.
        writers: Functions that write a video, by path below the folder, ``SPLIT/CLASS/NAME.mp4``.

    Raises:
        DataError: the folder contains other files.
        SystemSetupError: a video cannot be written.
    """
    stamp = json.dumps(settings)
    key = hashlib.sha256(stamp.encode()).hexdigest()[:8]
    root = Path(location).expanduser() if location else cache_dir() / name / key
    try:
        claim_folder(root, stamp)
        missing = [path for path in writers if not (root / path).is_file()]  # existing files are complete
        with ThreadPoolExecutor(cores()) as pool:  # rendering and encoding release the GIL
            list(pool.map(lambda path: writers[path](root / path), missing))
    except OSError as error:
        hint = "Free some disk space, or choose another folder. Finished clips are kept."
        raise SystemSetupError(f"Cannot write clips to '{root}': {error.strerror or error}.", hint) from error
    return replace(folder.load(str(root)), name=name)
