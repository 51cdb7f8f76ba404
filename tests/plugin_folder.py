"""Distributions written by hand into a folder, as an installer leaves them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

BROKEN = Path(__file__).resolve().parents[1] / "plugins" / "ccl-broken"


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
    """What `pip install plugins/ccl-broken` would write, from its own pyproject.toml."""
    project = tomllib.loads((BROKEN / "pyproject.toml").read_text())["project"]
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    install(folder, project["name"].replace("-", "_"), "\n".join(sections), version=project["version"])
    package = folder / "ccl_broken"
    package.mkdir()
    for source in (BROKEN / "ccl_broken").glob("*.py"):
        (package / source.name).write_text(source.read_text())


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
