"""The documentation as tests see it: its pages, their fenced blocks, and the commands in those."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md"))]

_FENCE = re.compile(r"(?P<indent> *)(?P<ticks>```+)(?P<language>\w*) *(?:title=\"(?P<title>[^\"]+)\")? *")
_BETWEEN = {"&&", "||", "|", ";", "&"}
_REDIRECTION = {">", ">>", "<", ">&"}


@dataclass(frozen=True)
class Block:
    """A fenced block; one with a title is a file of that name, which later commands may use."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        opened = _FENCE.fullmatch(line)
        if not opened:
            assert "```" not in line or "````" in line, (
                f"{name(page)}:{number}: a fence that tests cannot read: {line}"
            )
            continue
        text = []
        for _, inner in lines:
            if inner.strip() == opened["ticks"]:
                break
            text.append(inner.removeprefix(opened["indent"]))
        yield Block(page, number, opened["language"], opened["title"], "\n".join(text) + "\n")


def commands(block: Block) -> list[str]:
    """What a reader would type: one shell line each, without comments and prompts; a file is not typed."""
    if block.title or block.language not in ("bash", "console"):
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    bare = (re.sub(r"(^|\s+)#.*", "", line) for line in lines)
    return [" ".join(line.split()) for line in bare if line.strip()]


def every_command(page: Path) -> list[str]:
    return [command for block in blocks(page) for command in commands(block)]


def calls(command: str) -> list[list[str]]:
    """The arguments of every ``ccl`` in a shell line, whoever starts it; a variable stands for a 1."""
    filled_in = re.sub(r"\$\{[^}]*\}|\$\w+", "1", command)
    lexer = shlex.shlex(filled_in, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word in _BETWEEN:
            simple.append([])
        elif word in _REDIRECTION:
            next(words)
        else:
            simple[-1].append(word)
    return [arguments for words in simple if (arguments := _after_ccl(words)) is not None]


def _after_ccl(words: list[str]) -> list[str] | None:
    for place, word in enumerate(words):
        if Path(word).name == "ccl" or (word == "ccl_cli" and words[place - 1] == "-m"):
            return words[place + 1 :]
    return None
