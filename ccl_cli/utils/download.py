"""Resumable HTTP downloads and integrity checks."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from ccl_cli.errors import SystemSetupError

# Called with the downloaded bytes and the total bytes (None if the server does not state it).
Progress = Callable[[int, int | None], None]

FAILURES = (OSError, http.client.HTTPException)
_TIMEOUT = 30.0  # seconds without data
_ATTEMPTS = 5
_YES = ("1", "true", "yes", "on")


def download(url: str, path: Path, progress: Progress | None = None) -> None:
    """Download ``url`` to ``path``; resume if ``path`` already has some bytes.

    Raises:
        OSError, http.client.HTTPException: see ``FAILURES``; the received bytes are kept for the next
        attempt.
        SystemSetupError: the URL, or a redirect, is neither http nor https.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        before = size(path)
        if _fetch(url, path, progress):
            return
        if size(path) == before:
            break
    raise ConnectionError(f"the connection was cut after {size(path):,} bytes")


def download_json(url: str) -> Any:
    """Download and parse a JSON document.

    Raises:
        ValueError: the document is not JSON. See also :func:`download`.
    """
    with _open(url, {}) as response:
        return from_json(response.read())


def reason(error: Exception) -> str:
    """Describe a download error in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    cause = getattr(error, "reason", None) or error
    message = getattr(cause, "strerror", None) or cause
    return " ".join(str(message).split()).rstrip(".") or type(error).__name__


def offline_variable() -> str | None:
    """Return the environment variable that disables downloads, or None."""
    variables = "CCL_OFFLINE", "HF_HUB_OFFLINE"
    return next((name for name in variables if os.environ.get(name, "").lower() in _YES), None)


def download_fault(path: Path, checksum: str | None, bytes_: int | None = None) -> str | None:
    """Compare a file with its published size and checksum; return the difference in words, or None.

    Args:
        path: Downloaded file.
        checksum: ``<algorithm>:<hex>``, where a prefix of the digits is enough; an algorithm of hashlib, or
            ``git`` for git's blob hash.
        bytes_: Size of the published file.
    """
    if bytes_ is not None and size(path) != bytes_:
        return f"it has {size(path):,} bytes instead of {bytes_:,}"
    if not checksum:
        return None
    algorithm, _, expected = checksum.partition(":")
    actual = _digest(path, algorithm)
    return None if actual.startswith(expected) else f"its {algorithm} is {actual} instead of {expected}"


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm, usedforsecurity=False)
    if algorithm == "git":
        digest.update(b"blob %d\0" % size(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def size(path: Path) -> int:
    """Return the size of a file in bytes, or 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def _fetch(url: str, path: Path, progress: Progress | None) -> bool:
    """Request the missing bytes once; return whether the file is complete."""
    have = size(path)
    try:
        response = _open(url, {"Range": f"bytes={have}-"} if have else {})
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return _is_whole(path, error.headers.get("Content-Range", ""))
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        have = 0  # the server sends the whole file again
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else None
    with response, path.open("ab" if have else "wb") as out:
        try:
            while chunk := response.read(1 << 20):
                out.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
        except (http.client.IncompleteRead, ConnectionError, TimeoutError):
            return False
    return total is None or have == total


def _is_whole(path: Path, content_range: str) -> bool:
    # "bytes */N": all N bytes are already here. Another N means that the file on the server has changed.
    if content_range == f"bytes */{size(path)}":
        return True
    path.write_bytes(b"")
    raise ConnectionError("the file on the server has changed and must be downloaded again")


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        _refuse_other_schemes(args[-1])
        return super().redirect_request(*args)


def _open(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    _refuse_other_schemes(url)
    request = urllib.request.Request(url, headers={"User-Agent": "ccl", **headers})
    opener = urllib.request.build_opener(_WebRedirects)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()  # its headers stay readable
        raise
    return response


def _refuse_other_schemes(url: str) -> None:
    if not url.startswith(("https://", "http://")):
        raise SystemSetupError(f"'{url}' is refused: only http and https are supported.")
