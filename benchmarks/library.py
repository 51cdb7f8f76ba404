"""Search in a library: exact, against faiss' approximate index; time from opening it, memory and recall.

    python benchmarks/library.py [--videos 100000] [--width 512] [--rounds 3]

Both read the same library, which is made first, from vectors made up with a seed. Recall is the share of the
ten nearest that are found. Random vectors have no neighbourhoods that an approximate index could use: the
worst case. Vectors around the centres of 300 classes are easier; real ones lie between. Each search runs in a
process of its own, in turns, so that nothing is in memory but what the disk's cache holds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from measuring import (
    add_clock,
    clock,
    figure,
    heading,
    in_process,
    median,
    megabytes,
    peak_memory,
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
        vectors += (
            1.5
            * rng.standard_normal((CLASSES, width), dtype=np.float32)[rng.integers(0, CLASSES, len(vectors))]
        )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def make(folder: Path, kind: str, videos: int, width: int) -> dict[str, float]:
    """Write the library and its approximate index, and the queries beside it."""
    vectors = made_up(kind, videos, width)
    folder.mkdir()
    create(folder, model=folder / "model", fingerprint="0" * 64, dim=width)
    begin = clock()
    with open_library(folder, write=True) as library:
        for number, vector in enumerate(vectors[:videos]):
            library.put(f"/videos/of/somebody/{number:07}.mp4", Stamp(1, 1), vector)
        put, begin = clock() - begin, clock()
        approximate.build(library, folder)
        build = clock() - begin
    np.save(folder / "queries.npy", vectors[videos:])
    sizes = [(folder / name).stat().st_size for name in (FILE, approximate.FILE)]
    return {"put": put, "build": build, "bytes": sizes[0], "faiss_bytes": sizes[1]}


def ask(folder: Path, count: int, probes: int) -> dict[str, object]:
    """Open the library and search; 0 probes: exactly."""
    queries = np.load(folder / "queries.npy")[:count]
    if probes:
        approximate.import_faiss()  # it is no part of a search
    before, begin = peak_memory(anew=True), clock()
    with open_library(folder) as library:
        if probes:
            _, numbers = approximate.search(library, folder, queries, TOP, probes)
        else:
            _, numbers = nearest(library, torch.from_numpy(queries), TOP)
    return {"seconds": clock() - begin, "grown": peak_memory() - before, "numbers": numbers.tolist()}


def compare(folder: Path, kind: str, options: argparse.Namespace) -> None:
    made = in_process(
        "--make", folder / kind, "--kind", kind, "--videos", options.videos, "--width", options.width
    )
    print(
        f"{'Random vectors' if kind == 'random' else f'Vectors around {CLASSES} centres'}: library of ",
        end="",
    )
    print(f"{megabytes(made['bytes'])} MB; faiss' index {megabytes(made['faiss_bytes'])} MB, ", end="")
    print(f"made in {figure(made['build'])} {unit()}.\n")
    ways = [(count, probes) for count in QUERIES for probes in (0, *PROBES)]
    found: dict[tuple[int, int], list[dict]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for count, probes in ways:
            found[count, probes].append(
                in_process("--ask", folder / kind, "--count", count, "--probes", probes)
            )
    rows = []
    for count, probes in ways:
        exact, ours = found[count, 0][0]["numbers"], found[count, probes][0]["numbers"]
        recall = np.mean([len({*a} & {*b}) / TOP for a, b in zip(exact, ours, strict=True)])
        seconds = median([each["seconds"] for each in found[count, probes]])
        grown = max(each["grown"] for each in found[count, probes])
        name = f"faiss, {probes} lists" if probes else "exact"
        rows.append([count, name, figure(seconds), megabytes(grown), f"{100 * recall:.1f}"])
    table(["queries", "search", unit(), "grown, MB", f"recall at {TOP}, %"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    add_clock(parser)
    for name in ("--make", "--ask"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    for name in ("--count", "--probes"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        print(json.dumps(make(options.make, options.kind, options.videos, options.width)))
    elif options.ask:
        print(json.dumps(ask(options.ask, options.count, options.probes)))
    else:
        heading("Search in a library", "torch", "numpy", "faiss-cpu")
        print(
            f"{options.videos:,} videos, {options.width} numbers each, the {TOP} nearest; "
            f"median of {options.rounds} in turns.\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("random", "classes"):
                compare(Path(folder), kind, options)


if __name__ == "__main__":
    main()
