"""Imported by the server that workers are forked from, and by nothing else: what the workers need."""

import ccl_cli.data.dataset
import ccl_cli.data.windows  # noqa: F401
