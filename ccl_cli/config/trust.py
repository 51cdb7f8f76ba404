"""Permission to run Python code from a teacher's repository, which only the user can give."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

VARIABLE = "CCL_TRUST_REMOTE_CODE"
_TYPED = re.compile(r"\btrust_remote_code=(true|yes|on)\b", re.IGNORECASE)


def note_typed(arguments: Iterable[str]) -> None:
    """Record ``trust_remote_code=true`` in the arguments, for this command and its child processes."""
    if any(map(_TYPED.search, arguments)):
        os.environ[VARIABLE] = "1"


def is_code_trusted() -> bool:
    """Return whether the user gave ``trust_remote_code=true``, or set the environment variable to true."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes", "on")
