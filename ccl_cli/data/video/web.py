"""Parts of files over http and https, through connections that stay open."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.request
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from urllib.parse import SplitResult, urljoin, urlsplit

from ccl_cli.errors import DataError, EnvironmentError_

_TIMEOUT = 30.0  # seconds without a byte
_PAUSES = (0.5, 2.0)  # seconds before the second and the third attempt
_REDIRECTS = 5
_TOTAL = re.compile(r"bytes (?:\*|\d+-\d+)/(\d+)")
_own = threading.local()


class _Busy(HTTPException):
    """An answer that may be another one in a moment."""


def is_web(address: str) -> bool:
    """Whether this module reads it."""
    return address.startswith(("http://", "https://"))


def read(url: str, offset: int, size: int) -> bytes:
    """Read ``size`` bytes from ``offset`` on; fewer where the file ends before.

    Raises:
        DataError: it is not there.
        EnvironmentError_: the server cannot be reached, or sends the whole file instead of a part.
    """
    return _ask(url, offset, size)[0]


def length(url: str) -> int:
    """Size of a file in bytes; errors as in :func:`read`."""
    return _ask(url, 0, 1)[1]


def _ask(url: str, offset: int, size: int) -> tuple[bytes, int]:
    """The bytes and the whole file's size; what may work in a moment is tried again."""
    for pause in (*_PAUSES, None):
        try:
            return _taken(url, _answer(url, f"bytes={offset}-{offset + size - 1}"), size)
        except (OSError, HTTPException) as error:
            _connections().clear()
            if pause is None:
                said = (
                    getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
                )
                raise EnvironmentError_(f"'{url}' cannot be read: {said}.") from error
            time.sleep(pause)
        except BaseException:
            _connections().clear()  # what is left of an answer must not be taken for the next one
            raise
    raise AssertionError("the last attempt returns or raises")


def _taken(url: str, response: HTTPResponse, size: int) -> tuple[bytes, int]:
    said = f"{response.status} {response.reason}"
    if response.status == HTTPStatus.OK:
        raise EnvironmentError_(
            f"'{url}': the server sends whole files only, no parts of them (it ignores Range).",
            "Use a server that sends ranges, or copy the folder to this machine.",
        )
    if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise DataError(f"'{url}' is not there: the server answers {said}.")
    if response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _Busy(f"the server answers {said}")
    total = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
    past_end = response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    if total is None or not (past_end or response.status == HTTPStatus.PARTIAL_CONTENT):
        raise EnvironmentError_(f"'{url}' cannot be read: the server answers {said}.")
    data = response.read(size)  # no more than was asked for, whatever is sent
    if response.length and len(data) < size:
        raise IncompleteRead(data, response.length)
    if not response.isclosed():
        _connections().clear()  # what is left would be taken for the next answer
    return b"" if past_end else data, int(total[1])


def _answer(url: str, wanted: str) -> HTTPResponse:
    for _ in range(_REDIRECTS):
        parts = urlsplit(url)
        connection, target = _connection(parts)
        connection.request("GET", target, headers={"Range": wanted, "User-Agent": "ccl"})
        response = connection.getresponse()
        if response.status not in (301, 302, 303, 307, 308):
            return response
        response.read()
        url = urljoin(url, response.headers.get("Location", ""))
        if not is_web(url):
            raise EnvironmentError_(f"The server redirects to '{url}', which is neither http nor https.")
    raise EnvironmentError_(f"'{url}' cannot be read: the server redirects again and again.")


class _Connections(dict[tuple[int, str, str], HTTPConnection]):
    """Open connections of one thread; those of the process it was forked from are not its own."""

    def clear(self) -> None:
        for (process, *_), connection in self.items():
            if process == os.getpid():
                connection.close()
        super().clear()

    def __del__(self) -> None:
        self.clear()


def _connections() -> _Connections:
    if not hasattr(_own, "connections"):
        _own.connections = _Connections()
    connections: _Connections = _own.connections
    return connections


def _connection(parts: SplitResult) -> tuple[HTTPConnection, str]:
    """The connection to a server, through the proxy that the environment names, and what to ask for there."""
    key = (os.getpid(), parts.scheme, parts.netloc)
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    through = (
        "" if urllib.request.proxy_bypass(parts.netloc) else urllib.request.getproxies().get(parts.scheme, "")
    )
    proxy = urlsplit(through).netloc or through
    if key not in _connections():
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(proxy or parts.netloc, timeout=_TIMEOUT)
        if proxy and parts.scheme == "https":
            connection.set_tunnel(parts.netloc)
        _connections()[key] = connection
    return _connections()[key], parts.geturl() if proxy and parts.scheme == "http" else target
