"""A manifest file, written by ``ccl data prepare``, by a run or by hand."""

from __future__ import annotations

import logging
from pathlib import Path

from ccl_cli.data.manifest import Manifest, read_header
from ccl_cli.data.sources.about import described

_log = logging.getLogger("ccl")


@described("A list that `ccl data prepare` wrote.", "manifest:ucf51.jsonl")
def load(location: str, *, root: str | None = None) -> Manifest:
    """Read a manifest. Its videos, classes and hash are those of the source that it was made from.

    Args:
        location: The file.
        root: Folder of the videos, if they have been moved; None: the folder in the manifest.

    Raises:
        DataError: the file is missing or not a valid manifest.
    """
    path = Path(location).expanduser()
    manifest = Manifest.load(path, Path(root).expanduser().absolute() if root else None)
    if read_header(path).get("hash", manifest.hash) != manifest.hash:
        _log.warning("'%s': the videos have changed; run `ccl data prepare` again.", path)
    return manifest
