"""Data knows nothing of the layers that use it."""

from __future__ import annotations

import ast
from pathlib import Path

import ccl_cli.data

ABOVE = (
    "teachers",
    "students",
    "methods",
    "training",
    "evaluation",
    "bench",
    "report",
    "deploy",
    "search",
    "cli",
)


def test_data_imports_no_layer_above_it():
    root = Path(ccl_cli.data.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ccl_cli."):
                assert (node.module or "").split(".")[1] not in ABOVE, f"{path}: {node.module}"
