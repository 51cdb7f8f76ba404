"""Imports of every cell, done once by the fork server."""

import timm.scheduler  # noqa: F401

import ccl_cli.data.clips.dataset
import ccl_cli.data.clips.evaluation_clips
import ccl_cli.evaluation.evaluate
import ccl_cli.evaluation.while_training  # noqa: F401
