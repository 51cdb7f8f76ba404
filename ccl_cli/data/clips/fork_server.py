"""Imported by the server that workers are forked from, and by nothing else: what the workers need."""

import ccl_cli.data.clips.dataset
import ccl_cli.data.clips.windows  # noqa: F401
