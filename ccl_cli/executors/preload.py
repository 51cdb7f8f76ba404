"""Imports of every item, done once by the fork server."""

import contextlib
import importlib
import os

for _module in filter(None, os.environ.get("CCL_PRELOAD", "").split(",")):
    with contextlib.suppress(Exception):  # import errors are reported by the items
        importlib.import_module(_module)
