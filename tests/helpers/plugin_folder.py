"""Distributions written by hand into a folder, as an installer leaves them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
BROKEN = PLUGINS / "ccl-broken"


def install(
    folder: Path,
    name: str,
    entry_points: str | bytes = "",
    *,
    version: str = "1.0",
    modules: Mapping[str, str] | None = None,
    metadata: bool = True,
    prefix: str = "",
) -> Path:
    """Write a distribution's metadata and modules; returns its dist-info folder."""
    info = folder / f"{prefix}{name}-{version}.dist-info"
    info.mkdir(parents=True)
    if metadata:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    data = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
    (info / "entry_points.txt").write_bytes(data)
    for module, source in (modules or {}).items():
        (folder / f"{module}.py").write_text(source)
    return info


def install_broken(folder: Path) -> None:
    """What `pip install plugins/ccl-broken` would write."""
    install_project(folder, BROKEN)


def install_project(folder: Path, source: Path) -> None:
    """What `pip install` of a folder of `plugins/` would write, from its own pyproject.toml."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    name = project["name"].replace("-", "_")
    install(folder, name, "\n".join(sections), version=project["version"])
    shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def own_python(folder: Path) -> Path:
    """A virtual environment that sees this one's packages and can be installed into; its interpreter.

    Its commands ``ccl``, ``pip`` and ``pytest`` are those of the packages it sees.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    (site,) = folder.glob("lib/python3*/site-packages")
    seen = [
        path for path in sys.path if path and Path(path).is_dir() and not path.startswith(sys.base_prefix)
    ]
    (site / "seen.pth").write_text("\n".join(seen) + "\n")
    python = folder / "bin" / "python"
    for name, module in {"ccl": "ccl_cli", "pip": "pip"}.items():
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{python}" -m {module} "$@"\n')
        command.chmod(0o755)
    return python
