"""Imports go one way between the rooms of the package, and no room is a long list of files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ccl_cli

PACKAGE = Path(ccl_cli.__file__).parent
# From the top to the bottom: a room imports from rooms below its own line, and from its own files.
LINES = """
    __main__
    cli
    demo doctor scaffold testing
    library
    deploy
    report
    bench
    evaluation
    training
    methods
    students
    teachers
    data
    executors
    config
    registry
    errors utils
"""
LINE_OF = {room: number for number, line in enumerate(LINES.strip().splitlines()) for room in line.split()}
TOGETHER = {frozenset({"errors", "utils"})}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every room that a file imports from."""
    yield from (name.split(".")[1] for name in modules(path) if name.startswith("ccl_cli."))


def modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module == "ccl_cli"
            names = [f"ccl_cli.{alias.name}" for alias in node.names] if whole else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from names


def test_rooms_import_only_from_rooms_below_them():
    upwards = [
        f"{path.relative_to(PACKAGE)} imports from {other}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" or path.parent != PACKAGE
        for other in set(imports(path)) - {room(path), "__version__"}
        if LINE_OF[other] <= LINE_OF[room(path)] and frozenset({other, room(path)}) not in TOGETHER
    ]
    assert upwards == []


def test_rooms_of_the_report_import_one_way():
    order = ["records", "tables", "figures", "page"]
    report = PACKAGE / "report"
    upwards = [
        f"{path.relative_to(report)} imports from {other}"
        for path in report.rglob("*.py")
        if path.parent != report
        for name in modules(path)
        if name.startswith("ccl_cli.report.") and (other := name.split(".")[2]) != path.parent.name
        if other not in order[: order.index(path.parent.name)]
    ]
    assert upwards == []


def test_nothing_but_a_library_is_an_sqlite_file():
    """What lies under ``CCL_HOME`` may be on a disk that machines share, where SQLite loses data."""
    users = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "sqlite3" in modules(path)}
    assert {user.parts[0] for user in users} == {"library"}


def test_no_folder_is_a_long_list_of_files():
    counts = {folder: len(list(folder.glob("*.py"))) for folder in PACKAGE.rglob("*") if folder.is_dir()}
    assert {str(folder.relative_to(PACKAGE)): count for folder, count in counts.items() if count > 16} == {}
