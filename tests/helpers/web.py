"""A web server on this machine that does as it is told."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar


@dataclass
class Server:
    """What the web server does with each request, and what it was asked."""

    address: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers end
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


S = TypeVar("S", bound=Server)


@contextmanager
def serving(state: S) -> Iterator[S]:

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            state.asked.append((self.path, self.headers["Range"]))
            if self.path in state.redirects:
                self.send_response(302)
                self.send_header("Location", state.redirects[self.path])
                self.end_headers()
            elif self.path in state.pages:
                self.answer(state.pages[self.path])
            else:
                self.send_error(404)

        def answer(self, page: bytes):
            first = 0
            if state.ranges and self.headers["Range"]:
                first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if first >= len(page):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(page)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(page) - 1}/{len(page)}")
            self.send_header("Content-Length", str(len(page) - first))
            self.end_headers()
            stop = first + state.cuts.pop(0) if state.cuts else len(page)
            self.wfile.write(page[first:stop])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        state.address = f"http://127.0.0.1:{web.server_port}"
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield state
        web.shutdown()
        thread.join()
