"""Words that were replaced do not come back: in names, comments, docstrings, messages, help and pages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ccl_cli.cli import app
from tests.docs.pages import PAGES, ROOT, name

PACKAGE = ROOT / "ccl_cli"
CODE = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
# The report has words of its own.
ROOMS = [path for path in CODE if not path.is_relative_to(PACKAGE / "report")]
ROOMS += [
    PACKAGE / "deploy" / "card.md",
    *(path for path in PACKAGE.rglob("*.txt") if "templates" in path.parts),
]

# In names: the object's name instead, `lock` for hold and `fix` for mend.
NAMES = {"told", "said", "held", "hold", "kept", "found", "looked", "viewed", "seen", "mend", "heard"}
TERMS = r"(?i)held_?out|hold_?out"  # of the field: videos held out of the training split
FILES = {"middle", "look", "kept", "raw", "location", "described", "describing", "inference", "deployed"}
FILES |= {"quantised", "opening", "finite", "heap", "probing"}
# In texts: the old word, and the new one.
TEXTS = {
    "the contrast": "the contrastive loss",
    "training list": "training split",
    "test list": "test split",
    "told": "given, or get",
    "hears": "uses audio",
    "mend": "fix",
    "whoever": "the user, the caller, ...",
    "go on": "continue",
    "goes on": "continues",
    "anew": "again",
    "data base": "database",
    "give the same command": "run the same command",
    "make room": "free some disk space",
    "stretch": "segment",
    "remembered": "stored",
    "takes place": "happens",
    "once more": "again",
    "for good": "permanently",
    "makes of": "the output of, ...",
    "goes by": "has",
    "the other way round": "vice versa",
}
_TEXT = re.compile(r"\b(?:" + "|".join(TEXTS).replace(" ", r"\s+") + r")\b", re.IGNORECASE)


def old_words(text: str) -> list[str]:
    return [f"{word}: {TEXTS[' '.join(word.lower().split())]}" for word in _TEXT.findall(text)]


def old_names(defined: str) -> list[str]:
    words = re.findall(r"[A-Za-z][a-z]*", re.sub(TERMS, "", defined))
    return [defined] if NAMES & {word.lower() for word in words} else []


def definitions(tree: ast.AST) -> Iterator[str]:
    """Names that other code or a reader meets; those of a function's variables stay in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def texts(path: Path) -> Iterator[str]:
    """Comments and strings of a module; of another file, all of it."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield source
        return
    comments: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.append(token.string.removeprefix("#").strip())
    yield " ".join(comments)  # a phrase may be broken over lines
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def helps(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for word, inner in getattr(command, "commands", {}).items():
        yield from helps(inner, f"{path} {word}")


def test_names():
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in CODE)
    old = {
        name(path): [word for each in definitions(tree) for word in old_names(each)] for path, tree in trees
    }
    assert {path: words for path, words in old.items() if words} == {}
    assert [name(path) for path in CODE if path.stem in FILES] == []


def test_comments_docstrings_and_messages():
    assert len(ROOMS) > 100
    old = {
        name(path): words for path in ROOMS if (words := [w for text in texts(path) for w in old_words(text)])
    }
    assert old == {}


def test_help():
    shown = [pair for word in app.OWN for pair in helps(app._real(word), f"ccl {word}")]
    assert len(shown) > 200
    assert {path: words for path, text in shown if (words := old_words(text))} == {}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages(page):
    assert old_words(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("word", TEXTS)
def test_an_old_word_is_noticed(word):
    assert len(old_words(f"Here is {word.upper().replace(' ', chr(10))}, again.")) == 1


@pytest.mark.parametrize("defined", ["kept", "_held_signals", "Looked", "is_told"])
def test_an_old_name_is_noticed(defined):
    assert old_names(defined) == [defined]
    assert old_names(defined + "_holdout") == [defined + "_holdout"]
    assert old_names("HeldOut") == old_names("_hold_out") == []
