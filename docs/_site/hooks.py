"""MkDocs hooks: add the generated pages, and the results outside ``docs/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import reference  # beside this file
from mkdocs.structure.files import File, Files

_RESULTS = "benchmarks/results"
_SHOWN = (
    "correspondence_official.md",
    "defaults.md",
    "demo.md",
    "executors.md",
    "gradient_share.md",
    "input.md",
    "label_free.md",
    "library.md",
    "manifest.md",
    "methods.md",
    "page.md",
    "scale.md",
    "speed_growth.md",
    "speed_loss.md",
    "speed_method_overhead.md",
    "speed_precision.md",
    "speed_retrieval.md",
    "speed_start.md",
    "speed_step.md",
    "speed_step_wide.md",
    "speed_wait.md",
    "standardize.md",
)  # results that no page of docs/ includes
_PAGES = {"commands.md": reference.commands, "keys.md": reference.keys}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages about commands and keys, and the benchmarks' results."""
    for name, write in _PAGES.items():
        files.append(File.generated(config, name, content=write()))
    root = Path(config.config_file_path).parent
    for name in _SHOWN:
        address = f"{_RESULTS}/{name}"
        files.append(File.generated(config, address, abs_src_path=str(root / address)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Redirect links to results outside ``docs/`` to their copies in the site."""
    return markdown.replace(f"](../{_RESULTS}/", f"]({_RESULTS}/")
