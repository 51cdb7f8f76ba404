"""The location of a video, a file or a place in a shard, and reading of its bytes."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from ccl_cli.data.video.faults import blaming_video
from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.utils.download import reason
from ccl_cli.utils.sentences import invalid_value

RECORD, JPEGS, MP4, SOUND = "json", "jpgs", "mp4", "wav"
_BLOCK = 4096  # bytes
_PAUSES = (0.5, 2.0)  # seconds before the second and the third attempt
_PROXIES = {"client_kwargs": {"trust_env": True}}  # for web addresses: use the proxies of the environment


class Member(NamedTuple):
    """One uncompressed file inside a shard.

    Attributes:
        suffix: Kind of file: "json", "jpgs", "mp4" or "wav".
        offset: Position of its first byte in the shard.
        size: Number of bytes.
    """

    suffix: str
    offset: NonNegativeInt
    size: NonNegativeInt


@dataclass(frozen=True, slots=True)
class Packed:
    """A video in a shard.

    Attributes:
        shard: Absolute path or URL of the tar file.
        key: Name of its members, without suffix.
        members: Its record, picture and sound, if they exist; none if the video could not be packed.
        reason: Reason why it could not be packed.
    """

    shard: str
    key: str
    members: tuple[Member, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.shard}/{self.key}"

    def member(self, suffix: str) -> Member | None:
        """The member of this kind, or None."""
        return next((member for member in self.members if member.suffix == suffix), None)

    def read(self, suffix: str, begin: int = 0, end: int | None = None) -> bytes:
        """Read the bytes from ``begin`` to ``end`` of a member.

        Raises:
            DataError: the video was not packed, or the shard is missing or truncated.
            SystemSetupError: the server cannot be reached or does not send parts of a file.
        """
        member = self.member(suffix)
        if member is None:
            raise DataError(self.reason or f"'{self}' has no member '.{suffix}'.")
        end = member.size if end is None else min(end, member.size)
        return read_range(self.shard, member.offset + begin, max(0, end - begin))


Location = Path | Packed
_PACKED = TypeAdapter(Packed)


def size_of(location: Location) -> int | None:
    """Size of a video in bytes; None if it is missing. Servers are not asked."""
    if isinstance(location, Path):
        return file_size(location)
    end = max((member.offset + member.size for member in location.members), default=None)
    if end is None or not (is_url(location.shard) or (file_size(location.shard) or 0) >= end):
        return None
    return sum(member.size for member in location.members)


def contents_hash(location: Location) -> str | None:
    """Hash that distinguishes videos of the same name and size; None if the video is missing.

    For a file: its size and its first, middle and last 4 KiB, where containers keep their tables; a copy has
    the same. In a shard on this machine: the record, which has a hash of all members. On a server: the size.
    """
    size = size_of(location)
    if size is None:
        return None
    try:
        if isinstance(location, Path):
            content = _sampled(location, size)
        else:
            content = b"" if is_url(location.shard) else location.read(RECORD)
    except (OSError, DataError):  # reported when the video is read
        content = b""
    return hashlib.sha256(f"{size}:".encode() + content).hexdigest()


def is_url(address: str) -> bool:
    """Whether an address is a URL and not a local path."""
    return "://" in address


def read_range(address: str, offset: int, size: int) -> bytes:
    """Read ``size`` bytes from ``offset`` on, of a local file or a URL that fsspec supports.

    Raises:
        DataError: the file does not exist, or ends earlier.
        SystemSetupError: a server cannot be reached or ignores ranges, or a package for it is not installed.
    """
    if not size:
        return b""
    if is_url(address):
        data = _remote(address, "cat_file", start=offset, end=offset + size)
    else:  # in a third of the time of fsspec's local file system
        with blaming_video(address), open(address, "rb", buffering=0) as file:  # noqa: PTH123
            file.seek(offset)
            data = file.read(size)
    if len(data) > size:
        raise SystemSetupError(
            f"'{address}': the server sends whole files only, no parts of them (it ignores Range).",
            "Use a server that sends ranges, or copy the folder to this machine.",
        )
    if len(data) < size:
        raise DataError(f"'{address}' ends before byte {offset + size:,}: it is cut off.", "Copy it again.")
    return bytes(data)


def address_size(address: str) -> int:
    """Size of a local file or a URL in bytes. Raises the errors of :func:`read_range`."""
    if is_url(address):
        return int(_remote(address, "size") or 0)
    with blaming_video(address):
        return Path(address).stat().st_size


def _remote(address: str, method: str, **arguments: int) -> Any:
    """Call a method of the address's fsspec file system, up to three times."""
    scheme = address.partition("://")[0]
    try:
        store, path = url_to_fs(address, **(_PROXIES if scheme in ("http", "https") else {}))
    except (ImportError, ValueError) as error:
        raise SystemSetupError(
            f"Addresses with '{scheme}://' are read through fsspec, which cannot: {reason(error)}.",
            "For https: `pip install 'ccl-cli[remote]'`; else install the package that fsspec names.",
        ) from error
    for pause in (*_PAUSES, None):
        try:
            return getattr(store, method)(path, **arguments)
        except FileNotFoundError as error:
            raise DataError(f"'{address}' is not there.") from error
        except Exception as error:  # every file system has its own errors
            if pause is None:
                raise SystemSetupError(f"'{address}' cannot be read: {reason(error)}.") from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def to_plain(packed: Packed) -> dict[str, Any]:
    """Convert a place in a shard to JSON values."""
    plain = {"shard": packed.shard, "key": packed.key, "members": packed.members}
    return plain | ({"reason": packed.reason} if packed.reason else {})


def from_plain(plain: dict[str, Any]) -> Packed:
    """Convert the result of :func:`to_plain` back. Raises a ValueError if it is not a place in a shard."""
    try:
        return _PACKED.validate_python(plain)
    except ValidationError as error:
        raise ValueError(invalid_value(error)) from error


def _sampled(path: Path, size: int) -> bytes:
    """The first, middle and last block of a file; nothing from a pipe, which would block."""
    if not path.is_file():
        return b""
    places = (0, (size - _BLOCK) // 2, size - _BLOCK) if size > 3 * _BLOCK else range(0, size, _BLOCK)
    with path.open("rb", buffering=0) as file:
        return b"".join(os.pread(file.fileno(), _BLOCK, place) for place in places)


def file_size(path: Path | str) -> int | None:
    """Size of a local file in bytes; None if it is missing."""
    try:
        return os.stat(path).st_size  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except (OSError, ValueError):  # ValueError: a zero byte in it
        return None
