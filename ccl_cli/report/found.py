"""A page of searches: each query with what it found, in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ccl_cli.engine.searching import Answer
from ccl_cli.errors import CclError
from ccl_cli.progress import Reporter
from ccl_cli.report.collect import clean
from ccl_cli.report.document import document, picture
from ccl_cli.report.gallery import thumbnail
from ccl_cli.report.markup import Html, joined, tag

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
    said = [
        tag("p", f"{_counted(len(asked), 'query', 'queries')} to the library '{clean(folder.name)}'."),
        tag(
            "p",
            "Left: the query; then the videos nearest to it, with the cosine of their features.",
            class_="note",
        ),
    ]
    parts: list[Html] = [tag("section", tag("ol", *rows, class_="searches"))] if rows else []
    parts += [tag("p", clean(f"{each.query}: {each.fault}"), class_="absent") for each in lost]
    return document("Videos found", joined(said), Html(""), joined(parts))


def _row(answer: Answer, reporter: Reporter) -> Html:
    query = _tile(answer.query, "query", reporter)
    found = [_tile(hit.path, f"{hit.cosine:.3f}", reporter) for hit in answer.hits]
    return tag("li", query, tag("ol", *(tag("li", each) for each in found)))


def _tile(path: str, said: str, reporter: Reporter) -> Html:
    reporter.advance()
    name = clean(Path(path).name)
    caption = tag("figcaption", tag("strong", said), " ", name)
    shown = picture(_picture(path), f"{said}: {name}", clean(path))
    return tag("figure", shown, caption, class_="query" if said == "query" else None)


@lru_cache(maxsize=_KEPT)
def _picture(path: str) -> bytes | None:
    try:
        return thumbnail(Path(path))
    except CclError:  # gone or damaged since: the others can still be shown
        return None


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
