"""A page of searches: each query with what it found, in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ccl_cli.errors import CclError
from ccl_cli.report.document import document, picture
from ccl_cli.report.gallery import thumbnail
from ccl_cli.report.markup import Html, joined, tag
from ccl_cli.search.query import Answer
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.text import visible

_KEPT = 4096  # pictures: videos that one query finds are often found by the next


def page(answers: Sequence[Answer], folder: Path) -> str:
    """The page.

    Args:
        answers: Of at least one query.
        folder: The library's.
    """
    asked = [answer for answer in answers if not answer.fault]
    lost = [answer for answer in answers if answer.fault]
    with Reporter("pictures", sum(1 + len(each.hits) for each in asked), unit="picture") as reporter:
        rows = [_row(answer, reporter) for answer in asked]
    asking = "one video" if len(asked) == 1 else f"each of {len(asked)} videos"
    said = [
        tag("p", f"The videos of the library '{visible(folder.name)}' that are nearest to {asking}."),
        tag(
            "p",
            "First the query, then what it found, the nearest first, with the cosine of their features.",
            class_="note",
        ),
    ]
    parts: list[Html] = [tag("section", tag("ol", *rows, class_="searches"))] if rows else []
    parts += [tag("p", visible(f"{each.query}: {each.fault}"), class_="absent") for each in lost]
    return document("Videos found", joined(said), Html(""), joined(parts))


def _row(answer: Answer, reporter: Reporter) -> Html:
    query = _tile(answer.query, "query", reporter)
    found = [_tile(hit.path, f"{hit.cosine:.3f}", reporter) for hit in answer.hits]
    return tag("li", query, tag("ol", *(tag("li", each) for each in found)))


def _tile(path: str, said: str, reporter: Reporter) -> Html:
    reporter.advance()
    name = visible("/".join(Path(path).parts[-2:]))
    caption = tag("figcaption", tag("strong", said), " ", name)
    shown = picture(_picture(path), f"{said}: {name}", visible(path))
    return tag("figure", shown, caption, class_="query" if said == "query" else None)


@lru_cache(maxsize=_KEPT)
def _picture(path: str) -> bytes | None:
    try:
        return thumbnail(Path(path))
    except CclError:  # gone or damaged since: the others can still be shown
        return None
