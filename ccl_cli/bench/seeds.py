"""Parse seeds on the command line."""

from __future__ import annotations

from ccl_cli.errors import UsageError

_MAX_SEEDS = 1000


def parse_seeds(text: str) -> list[int]:
    """Parse ``--seeds``: ``5`` means the seeds 0 to 4, ``0,7`` the seeds 0 and 7, and ``3,`` only the seed 3.

    Raises:
        UsageError: the text is invalid, or a seed is repeated.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    seeds = numbers if "," in text or not numbers else range(min(numbers[0], _MAX_SEEDS + 1))
    if not 1 <= len(seeds) <= _MAX_SEEDS or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        rule = f"Give a number up to {_MAX_SEEDS:,}, or a list without repetitions: 5, or 0,1,2."
        raise UsageError(f"--seeds {text}: neither a number of seeds nor a list of seeds.", rule)
    return list(seeds)
