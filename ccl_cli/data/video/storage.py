"""Where a video lies, in a file of its own or in a shard, and how its bytes are read."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs

from ccl_cli.data.video.faults import blaming_video
from ccl_cli.errors import DataError, SystemSetupError

RECORD, JPEGS, MP4, SOUND = "json", "jpgs", "mp4", "wav"
_BLOCK = 4096  # bytes
_PAUSES = (0.5, 2.0)  # seconds before the second and the third attempt
_PROXIES = {"client_kwargs": {"trust_env": True}}  # web addresses: use the proxies that the environment names


class Member(NamedTuple):
    """One file of a shard, whose bytes lie there as they are.

    Attributes:
        suffix: What it is: "json", "jpgs", "mp4" or "wav".
        offset: First byte within the shard.
        size: Bytes.
    """

    suffix: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Packed:
    """A video in a shard.

    Attributes:
        shard: Absolute path or URL of the tar file.
        key: What its members are called there, without suffix.
        members: Its record, picture and sound, as far as it has them; none if it could not be packed.
        reason: Why it could not be packed.
    """

    shard: str
    key: str
    members: tuple[Member, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.shard}/{self.key}"

    def member(self, suffix: str) -> Member | None:
        """The member of this kind, if there is one."""
        return next((member for member in self.members if member.suffix == suffix), None)

    def read(self, suffix: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes ``begin`` to ``end`` of a member.

        Raises:
            DataError: the video was not packed, or the shard is gone or cut off.
            SystemSetupError: the server cannot be reached or does not send parts of a file.
        """
        member = self.member(suffix)
        if member is None:
            raise DataError(self.reason or f"'{self}' has no member '.{suffix}'.")
        end = member.size if end is None else min(end, member.size)
        return read_range(self.shard, member.offset + begin, max(0, end - begin))


Location = Path | Packed


def size_of(location: Location) -> int | None:
    """Bytes of a video; None if it is not there. Whether a server still has it is not asked."""
    if isinstance(location, Path):
        return file_size(location)
    end = max((member.offset + member.size for member in location.members), default=None)
    if end is None or not (is_url(location.shard) or (file_size(location.shard) or 0) >= end):
        return None
    return sum(member.size for member in location.members)


def contents_hash(location: Location) -> str | None:
    """What tells a video from another of the same name and size; None if it is not there.

    Of a file: its size and its first, middle and last 4 KiB, where containers keep their tables, so that
    another encoding differs; not when it was changed, which a copy changes too. In a shard on this machine:
    its record, which holds a hash of all its members. On a server, which would be asked for each: its size.
    """
    size = size_of(location)
    if size is None:
        return None
    try:
        if isinstance(location, Path):
            content = _sampled(location, size)
        else:
            content = b"" if is_url(location.shard) else location.read(RECORD)
    except (OSError, DataError):  # who reads the video will say so
        content = b""
    return hashlib.sha256(f"{size}:".encode() + content).hexdigest()


def is_url(address: str) -> bool:
    """Whether an address names something else than a local file."""
    return "://" in address


def read_range(address: str, offset: int, size: int) -> bytes:
    """Read ``size`` bytes from ``offset`` on.

    Args:
        address: A path, or a URL that fsspec knows.
        offset: First byte.
        size: Number of bytes.

    Raises:
        DataError: the file does not exist, or ends before.
        SystemSetupError: a server cannot be reached or ignores ranges, or a package for it is not installed.
    """
    if not size:
        return b""
    data: bytes = (
        _remote(address, "cat_file", start=offset, end=offset + size)
        if is_url(address)
        else _local(address, offset, size)
    )
    if len(data) > size:
        raise SystemSetupError(
            f"'{address}': the server sends whole files only, no parts of them (it ignores Range).",
            "Use a server that sends ranges, or copy the folder to this machine.",
        )
    if len(data) < size:
        raise DataError(f"'{address}' ends before byte {offset + size:,}: it is cut off.", "Copy it again.")
    return data


def length(address: str) -> int:
    """Size of a file in bytes; errors as in :func:`read_range`."""
    if is_url(address):
        return int(_remote(address, "size") or 0)
    try:
        return os.stat(address).st_size  # noqa: PTH116
    except OSError as error:
        raise DataError(f"'{address}' cannot be read: {error.strerror}.") from error


def _local(path: str, offset: int, size: int) -> bytes:
    """As fsspec's local file system reads a range, in a third of its time."""
    with blaming_video(path), open(path, "rb", buffering=0) as file:  # noqa: PTH123
        file.seek(offset)
        return file.read(size)


def _remote(address: str, method: str, **arguments: int) -> Any:
    """Call a method of the file system that fsspec has for an address, up to three times."""
    scheme = address.partition("://")[0]
    try:
        store, path = url_to_fs(address, **(_PROXIES if scheme in ("http", "https") else {}))
    except (ImportError, ValueError) as error:
        raise SystemSetupError(
            f"Addresses with '{scheme}://' are read through fsspec, which cannot: {_one_line(error)}.",
            "For https: `pip install 'ccl-cli[remote]'`; else install the package that fsspec names.",
        ) from error
    for pause in (*_PAUSES, None):
        try:
            return getattr(store, method)(path, **arguments)
        except FileNotFoundError as error:
            raise DataError(f"'{address}' is not there.") from error
        except Exception as error:  # every file system has errors of its own
            if pause is None:
                raise SystemSetupError(f"'{address}' cannot be read: {_one_line(error)}.") from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def to_plain(location: Location) -> str | dict[str, Any]:
    """A location as JSON has it."""
    if isinstance(location, Path):
        return str(location)
    plain: dict[str, Any] = {"shard": location.shard, "key": location.key, "members": location.members}
    return plain | ({"reason": location.reason} if location.reason else {})


def from_plain(plain: str | dict[str, Any]) -> Location:
    """What :func:`to_plain` made.

    Raises:
        ValueError, TypeError: it is something else.
    """
    if isinstance(plain, str):
        return Path(plain)
    location = Packed(**plain | {"members": tuple(Member(*member) for member in plain.get("members", ()))})
    numbers = [number for member in location.members for number in member[1:]]
    texts = [location.shard, location.key, location.reason, *(member.suffix for member in location.members)]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("places in a shard must be whole numbers")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("the shard and the names in it must be texts")
    return location


def _sampled(path: Path, size: int) -> bytes:
    """The first, middle and last block of a file; nothing of a pipe, which would not answer."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return b""
        if size <= 3 * _BLOCK:
            return os.pread(number, size, 0)
        places = (0, (size - _BLOCK) // 2, size - _BLOCK)
        return b"".join(os.pread(number, _BLOCK, place) for place in places)
    finally:
        os.close(number)


def file_size(path: Path | str) -> int | None:
    """Bytes of a file on this machine; None if it is not there."""
    try:
        return os.stat(path).st_size  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except (OSError, ValueError):  # ValueError: a zero byte in it
        return None
