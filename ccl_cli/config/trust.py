"""Whether Python code that lies beside a teacher's weights may run: only where the user types so."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

VARIABLE = "CCL_TRUST_REMOTE_CODE"
_TYPED = re.compile(r"\btrust_remote_code=(true|yes|on)\b", re.IGNORECASE)


def note_typed(arguments: Iterable[str]) -> None:
    """Remember for this command, and the processes that it starts, that its arguments trust such code."""
    if any(map(_TYPED.search, arguments)):
        os.environ[VARIABLE] = "1"


def is_code_trusted() -> bool:
    """Whether ``trust_remote_code=true`` was typed in this command, or the variable says yes."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes", "on")
