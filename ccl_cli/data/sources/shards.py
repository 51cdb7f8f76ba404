"""Packed videos: what ``ccl data pack`` wrote, in a folder or on a server."""

from __future__ import annotations

from pathlib import Path

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources.about import described
from ccl_cli.data.video.storage import is_url
from ccl_cli.errors import DataError


@described("What `ccl data pack` wrote, in a folder or on a server.", "shards:packed")
def load(location: str) -> Manifest:
    """List packed videos, in the order of the set they were packed from.

    Samples are read by their place in the shards, so training draws the same videos and windows as from
    files. Videos that could not be packed are listed as missing.

    Args:
        location: The folder, or an address that fsspec knows: https://, s3://, gs://.

    Raises:
        DataError: no shards there, or some are not what the index says.
        SystemSetupError: a server cannot be reached, or cannot send parts of files.
    """
    from ccl_cli.data.shards.index import read_manifest

    if not location:
        raise DataError(
            "No folder of shards is named.", "Write --data shards:DIR or shards:https://HOST/DIR."
        )
    return read_manifest(location if is_url(location) else str(Path(location).expanduser().absolute()))
