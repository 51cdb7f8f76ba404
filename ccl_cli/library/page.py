"""HTML page of search results: the thumbnails of each query and its hits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ccl_cli.library.query import Answer
from ccl_cli.report.figures.thumbnail import thumbnail
from ccl_cli.report.page.render import render
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.text import visible

_CACHED = 4096  # thumbnails; queries often share results


def page(answers: Sequence[Answer], folder: Path) -> str:
    """Render the page as HTML; ``folder`` is the library's."""
    readable = [answer for answer in answers if not answer.fault]
    with Reporter("pictures", sum(1 + len(each.hits) for each in readable), unit="picture") as reporter:

        def picture(path: str) -> bytes | None:
            reporter.advance()
            return _picture(path)

        return render(
            "search.html",
            title="Search results",
            library=visible(folder.name),
            answers=readable,
            faults=[visible(f"{answer.query}: {answer.fault}") for answer in answers if answer.fault],
            picture_of=picture,
            name_of=lambda path: visible("/".join(Path(path).parts[-2:])),
            visible=visible,
        )


_picture = lru_cache(maxsize=_CACHED)(lambda path: thumbnail(Path(path)))
