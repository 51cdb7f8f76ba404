"""Videos packed by ``ccl data pack``, in a folder or on a server."""

from __future__ import annotations

from pathlib import Path

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources.about import described
from ccl_cli.data.video.storage import is_url


@described("What `ccl data pack` wrote, in a folder or on a server.", "shards:packed")
def load(location: str) -> Manifest:
    """List packed videos, in the order of the original data set.

    Videos are read by offset, so training draws the same videos and clips as from files. Videos that could
    not be packed are listed as missing.

    Args:
        location: Folder, or a URL that fsspec supports: https://, s3://, gs://.

    Raises:
        DataError: there are no shards, or some do not match the index.
        SystemSetupError: a server cannot be reached, or cannot send parts of files.
    """
    from ccl_cli.data.shards.index import read_manifest

    return read_manifest(location if is_url(location) else str(Path(location).expanduser().absolute()))
