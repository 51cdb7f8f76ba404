"""The browser that pages are opened in, where there is one."""

from __future__ import annotations

import shutil

import pytest


def browser() -> str:
    """Its program; skips the test where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
    program = next(filter(None, map(shutil.which, names)), None)
    return program or pytest.skip("there is no browser here")
