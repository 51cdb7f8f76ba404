"""The browser that pages are opened in, where there is one."""

from __future__ import annotations

import shutil

import pytest

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chromium-headless-shell",
)


def browser() -> str:
    """Its program; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no browser here: looked for {', '.join(BROWSERS)}")
    return program
