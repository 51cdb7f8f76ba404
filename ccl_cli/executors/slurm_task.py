"""``python -m ccl_cli.executors.slurm_task WORK NUMBER``: run the share of one task of a job array."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from ccl_cli.config.recipe import Executor
from ccl_cli.executors import local
from ccl_cli.executors.work import Work
from ccl_cli.utils import console

_log = logging.getLogger("ccl")


class TaskLog:
    """Logs the events of items."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def began(self, name: str, place: str) -> None:
        """Log the place where an item runs."""
        _log.info("%s on %s", name, place)

    def ended(self, name: str) -> None:
        """Log that an item is done, or the reason of its failure."""
        _log.info("%s: %s", name, "done" if self.work.is_done(name) else self.work.reason(name))


def main(file: Path, number: int) -> int:
    """Run the unfinished items of a task's share.

    Returns:
        The exit code: 130 if stopped; otherwise 0, even if items failed, because they have written their
        reasons.
    """
    console.configure()
    values = json.loads(file.read_text(encoding="utf-8"))
    work = Work.read(values["work"])
    share = work.only(list(work.items)[number :: values["tasks"]])
    share = share.only(share.unsettled())
    try:
        local.run(share, Executor.model_validate(values["settings"]), TaskLog(share))
    except Exception as error:
        return console.report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
