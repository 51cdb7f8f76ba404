"""Stretches of bytes: from a file, from a web server, or from any store that fsspec knows."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from ccl_cli.data.video import web
from ccl_cli.errors import DataError, EnvironmentError_

_OPEN = 64  # files that stay open in each process


def is_url(address: str) -> bool:
    """Whether an address names something else than a file."""
    return "://" in address


def read_range(address: str, offset: int, size: int) -> bytes:
    """Read ``size`` bytes from ``offset`` on.

    Args:
        address: A path or a URL.
        offset: First byte.
        size: Number of bytes.

    Raises:
        DataError: it is not there, or ends before.
        EnvironmentError_: the server cannot be reached or does not send parts of a file, or fsspec is absent.
    """
    if not size:
        return b""
    if not is_url(address):
        data = _read_file(address, offset, size)
    elif web.is_web(address):
        data = web.read(address, offset, size)
    else:
        data = _from_store(address, "cat_file", start=offset, end=offset + size)
    if len(data) != size:
        raise DataError(f"'{address}' ends before byte {offset + size:,}: it is cut off.", "Copy it again.")
    return data


def read_whole(address: str) -> bytes:
    """All bytes of a file; errors as in :func:`read_range`."""
    return read_range(address, 0, length(address))


def length(address: str) -> int:
    """Size in bytes; errors as in :func:`read_range`."""
    if web.is_web(address):
        return web.length(address)
    if is_url(address):
        return int(_from_store(address, "size"))
    try:
        return os.stat(address).st_size  # noqa: PTH116
    except OSError as error:
        raise DataError(f"'{address}' cannot be read: {error.strerror}.") from error


def _read_file(path: str, offset: int, size: int) -> bytes:
    try:
        stat = os.stat(path)  # noqa: PTH116
        file = _opened(path, stat.st_ino, stat.st_mtime_ns)
        parts = [os.pread(file.number, size, offset)]
        while parts[-1] and (have := sum(map(len, parts))) < size:  # one call reads at most 2 GB
            parts.append(os.pread(file.number, size - have, offset + have))
        return b"".join(parts)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error


class _File:
    """A file descriptor that is closed with its last user."""

    def __init__(self, path: str) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@lru_cache(maxsize=_OPEN)
def _opened(path: str, inode: int, changed: int) -> _File:
    return _File(path)


def _from_store(address: str, ask: str, **how: int) -> Any:
    """Ask fsspec's file system for this address; it retries what is worth retrying itself."""
    store, path = _store(address)
    try:
        return getattr(store, ask)(path, **how)
    except FileNotFoundError as error:
        raise DataError(f"'{address}' is not there.") from error
    except Exception as error:
        said = " ".join(str(error).split()) or "no reason given"
        raise EnvironmentError_(f"'{address}' cannot be read: {type(error).__name__}: {said}.") from error


def _store(address: str) -> tuple[Any, str]:
    scheme = address.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        store, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise EnvironmentError_(
            f"Addresses with '{scheme}://' are read through fsspec, which cannot: {said}.",
            "Install it with `pip install 'ccl-cli[remote]'` and the package that it names, or serve the "
            "folder over https://.",
        ) from error
    return store, str(path)
