"""Imported by the server that cells are forked from: what every cell needs, once instead of in each."""

import contextlib
import importlib
import os

import timm.scheduler  # noqa: F401

import ccl_cli.data.clips.dataset
import ccl_cli.data.clips.sliding_windows
import ccl_cli.evaluation.evaluate
import ccl_cli.training.train  # noqa: F401

for _module in filter(None, os.environ.get("CCL_PRELOAD", "").split(",")):
    with contextlib.suppress(Exception):  # a plugin that cannot be imported is its cells' own trouble
        importlib.import_module(_module)
