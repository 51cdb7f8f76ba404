"""Blocks of files, such as videos. A block is an item of an executor and writes one file of results."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import CclError, PartDone
from ccl_cli.executors import map_items
from ccl_cli.executors.part import WHOLE, Part
from ccl_cli.executors.work import Work
from ccl_cli.utils.files import lock_file
from ccl_cli.utils.paths import cache_dir

Advance = Callable[..., None]  # advances a progress bar by a number of files
DONE = f"{__name__}:done"  # for work whose items have the key "file"
_MIN_FILES, _MAX_BLOCKS = 64, 256  # minimum files per block, maximum number of blocks


class BlockExecutor(ExitStack):
    """Executor of the blocks of one command, or of a part of them; see :func:`block_folder`."""

    def __init__(self, settings: Executor, part: Part = WHOLE) -> None:
        super().__init__()
        self.settings, self.part = settings, part
        self._folders: dict[str, Path] = {}

    def folder(self, title: str, *content: object) -> Path:
        """Return the folder of some work, identified by its content (JSON values)."""
        key = json.dumps([title, *content])
        if key not in self._folders:
            self._folders[key] = self.enter_context(block_folder(title, *content, part=self.part))
        return self._folders[key]


def block_executor(
    settings: Executor | None, part: Part = WHOLE
) -> AbstractContextManager[BlockExecutor | None]:
    """Return a context with the executor, or with None for a command that runs everything itself."""
    return BlockExecutor(settings, part) if settings else nullcontext()


@contextmanager
def block_folder(title: str, *content: object, part: Part = WHOLE) -> Iterator[Path]:
    """Lock a folder for the results of blocks of some work, identified by its content (JSON values).

    The results are removed when the context ends without an error, because the command has written its output
    by then. After an error, the same command reuses them.

    Raises:
        UsageError: another process runs the same work, or the same part of it.
    """
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    folder = (cache_dir() / "blocks" / f"{title}-{digest}").absolute()
    lock = ".lock" if part == WHOLE else f".lock-{part.number}-{part.parts}"
    with lock_file(folder / lock, "Another process runs the same work.", "Wait for it to finish."):
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def block_size(files: int) -> int:
    """Return the number of files per block."""
    return max(_MIN_FILES, -(-files // _MAX_BLOCKS))


def run_blocks(
    work: Work, settings: Executor, advance: Advance, sizes: Mapping[str, int], part: Part = WHOLE
) -> None:
    """Run all unfinished blocks of a part, for a caller that needs all blocks.

    Args:
        work: Work with one item per block.
        settings: Settings of the executor.
        advance: Advances the progress bar.
        sizes: Number of files of each block.
        part: Part of the blocks.

    Raises:
        CclError: some blocks failed; the others are kept.
        PartDone: all blocks of the part are done, but not those of other parts.
        Interrupted: stopped by a signal.
    """
    share = work.only(part.of(list(work.items)))
    advance(sum(sizes[name] for name in share.items if share.is_done(name)))
    reasons = map_items(share, settings, _Progress(advance, sizes))
    for name, why in reasons.items():
        raise CclError(
            f"{work.title}: {len(reasons)} of {len(share.items)} blocks failed, such as {name}: {why}",
            f"Finished blocks are kept. Run the same command to retry the others. Logs: '{work.folder}'.",
        )
    if left := len(work.unfinished().items):
        raise PartDone(
            f"Part {part} of {work.title} is done; other parts have {left} of {len(work.items)} blocks left.",
            "The part that finishes last writes the output.",
        )


def done(item: Mapping[str, Any]) -> bool:
    """Return whether the result of a block exists."""
    return Path(item["file"]).is_file()


class _Progress:
    def __init__(self, advance: Advance, sizes: Mapping[str, int]) -> None:
        self.advance, self.sizes = advance, sizes

    def began(self, name: str, place: str) -> None:
        self.advance(0, text=f"{name} on {place}")

    def ended(self, name: str) -> None:
        self.advance(self.sizes[name])
