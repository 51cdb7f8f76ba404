"""A web server on this machine: whole files or parts of them, and the faults that it is asked for."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest


@dataclass
class Server:
    """How the web server answers, and the requests that it got: paths and byte ranges.

    Attributes:
        pages: By path.
        root: A folder whose files are pages too.
        redirects: From path to address.
        cuts: Bytes after which the next answers end.
        faults: One for each of the next requests: "busy", "cut", which ends in the middle, or "moved".
        ranges: Whether parts are sent.
    """

    address: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    root: Path | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def page(self, path: str) -> bytes | None:
        if self.root and (self.root / path.lstrip("/")).is_file():
            return (self.root / path.lstrip("/")).read_bytes()
        return self.pages.get(path)


class _Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def log_message(self, *args):
        pass

    def do_GET(self):
        state = self.state
        state.asked.append((self.path, self.headers["Range"]))
        fault = state.faults.pop(0) if state.faults else ""
        page = state.page(self.path.removeprefix("/moved"))
        if fault == "busy":
            self.answer(503)
        elif fault == "moved":
            self.answer(302, Location=f"/moved{self.path}")
        elif self.path in state.redirects:
            self.answer(302, Location=state.redirects[self.path])
        elif page is None:
            self.answer(404)
        else:
            self.send_page(page, cut=fault == "cut")

    do_HEAD = do_GET

    def send_page(self, page: bytes, cut: bool):
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if not part or not self.state.ranges:
            self.answer(200, page)
            return
        first, last = int(part[1]), min(int(part[2] or len(page)), len(page) - 1)
        if first >= len(page):
            self.answer(416, **{"Content-Range": f"bytes */{len(page)}"})
            return
        content = page[first : last + 1]
        stop = len(content) // 2 if cut else None
        self.answer(206, content, stop, **{"Content-Range": f"bytes {first}-{last}/{len(page)}"})

    def answer(self, status: int, content: bytes = b"", stop: int | None = None, **headers: str):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if content and self.state.cuts:
            stop = self.state.cuts.pop(0)
        if self.command != "HEAD":
            self.wfile.write(content[:stop])


S = TypeVar("S", bound=Server)


def go_online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs reach this machine's servers, whatever the environment of the tests says."""
    for variable in ("CCL_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def serving(state: S) -> Iterator[S]:
    with listening(_Handler, state=state) as state.address:
        yield state


@contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler], **attributes: object) -> Iterator[str]:
    """Answer requests on a free port of this machine until the block ends; yields the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (handler,), attributes)) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:  # a test that fails must not leave a thread for which Python waits at its end
            web.shutdown()
            thread.join()
