"""What every cell imports: the server that cells are forked from does it once instead of each."""

import timm.scheduler  # noqa: F401

import ccl_cli.data.clips.dataset
import ccl_cli.data.clips.evaluation_clips
import ccl_cli.evaluation.evaluate
import ccl_cli.evaluation.while_training  # noqa: F401
