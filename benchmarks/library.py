"""Search in a library: exact, against faiss' approximate index; time from opening it, memory and recall.

    python benchmarks/library.py [--videos 100000] [--width 512] [--rounds 3]

Both read the same library, which is made first, from vectors made up with a seed. Recall is the share of the
ten nearest that are found. Random vectors have no neighbourhoods that an approximate index could use: the
worst case. Vectors around the centres of 300 classes are easier; real ones lie between. Each search runs in a
process of its own, in turns, so that nothing is in memory but what the disk's cache holds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import (
    arguments,
    figure,
    heading,
    in_process,
    in_turns,
    median,
    megabytes,
    peak_memory,
    seconds,
    table,
    unit,
)
from numpy.typing import NDArray

from ccl_cli.library import approximate
from ccl_cli.library.query import nearest
from ccl_cli.library.store import FILE, Stamp, create, open_library

TOP, CLASSES = 10, 300
QUERIES = (1, 100)
PROBES = (8, 32, 128)


def made_up(kind: str, videos: int, width: int) -> NDArray[np.float32]:
    """Vectors of length one, and the queries after them."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((videos + max(QUERIES), width), dtype=np.float32)
    if kind == "classes":
        centres = rng.standard_normal((CLASSES, width), dtype=np.float32)
        vectors += 1.5 * centres[rng.integers(0, CLASSES, len(vectors))]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def make(folder: Path, kind: str, videos: int, width: int) -> dict[str, float]:
    """Write the library and its approximate index, and the queries beside it."""
    vectors = made_up(kind, videos, width)
    folder.mkdir()
    create(folder, model=folder / "model", fingerprint="0" * 64, dim=width)
    with open_library(folder, write=True) as library:
        for number, vector in enumerate(vectors[:videos]):
            library.put(f"/videos/of/somebody/{number:07}.mp4", Stamp(1, 1), vector)
        build = seconds(lambda: approximate.build(library, folder))
    np.save(folder / "queries.npy", vectors[videos:])
    sizes = [(folder / name).stat().st_size for name in (FILE, approximate.FILE)]
    return {"build": build, "bytes": sizes[0], "faiss_bytes": sizes[1]}


def ask(way: tuple[int, int], folder: Path) -> dict[str, Any]:
    """Open the library and search with some queries; 0 probes: exactly."""
    count, probes = way
    queries = np.load(folder / "queries.npy")[:count]
    if probes:
        approximate.import_faiss()  # importing it is no part of a search
    numbers: list[Any] = []

    def search() -> None:
        with open_library(folder) as library:
            if probes:
                numbers.extend(approximate.search(library, folder, queries, TOP, probes)[1].tolist())
            else:
                numbers.extend(nearest(library, torch.from_numpy(queries), TOP)[1].tolist())

    before = peak_memory(anew=True)
    return {"seconds": seconds(search), "grown": peak_memory() - before, "numbers": numbers}


def compare(folder: Path, kind: str, options: argparse.Namespace) -> None:
    made = in_process(make, folder, kind, options.videos, options.width)
    vectors = "Random vectors" if kind == "random" else f"Vectors around {CLASSES} centres"
    print(
        f"{vectors}: library of {megabytes(made['bytes'])} MB; "
        f"faiss' index {megabytes(made['faiss_bytes'])} MB, made in {figure(made['build'])} {unit()}.\n"
    )
    ways = [(count, probes) for count in QUERIES for probes in (0, *PROBES)]
    found = in_turns(ask, ways, options.rounds, folder)
    rows = []
    for (count, probes), results in found.items():
        exact, ours = found[count, 0][0]["numbers"], results[0]["numbers"]
        recall = np.mean([len({*a} & {*b}) / TOP for a, b in zip(exact, ours, strict=True)])
        grown = max(each["grown"] for each in results)
        name = f"faiss, {probes} lists" if probes else "exact"
        taken = figure(median(each["seconds"] for each in results))
        rows.append([count, name, taken, megabytes(grown), f"{100 * recall:.1f}"])
    table(["queries", "search", unit(), "grown, MB", f"recall at {TOP}, %"], rows)


def main() -> None:
    options = arguments(__doc__, videos=100_000, width=512, rounds=3)
    heading("Search in a library", "torch", "numpy", "faiss-cpu")
    print(
        f"{options.videos:,} videos, {options.width} numbers each, the {TOP} nearest; "
        f"median of {options.rounds} in turns.\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("random", "classes"):
            compare(Path(folder) / kind, kind, options)


if __name__ == "__main__":
    main()
