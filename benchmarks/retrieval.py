"""Retrieval from features: recall, mean average precision and nearest neighbours, against faiss' exact index.

    python benchmarks/retrieval.py [--queries 1000] [--gallery 20000] [--width 512] [--rounds 3]
    python benchmarks/retrieval.py --paper      # 15,000 queries, 184,000 videos (VGGSound); minutes

Everything starts from the same features, made up with a seed, and each work runs in a process of its own, in
turns. Memory is by how much the process grew, at most, beyond features and libraries. The floor is the matrix
product alone, in the same blocks. faiss is left out where `faiss-cpu` is not installed; ccl does not need it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from measuring import (
    arguments,
    figure,
    heading,
    in_turns,
    median,
    megabytes,
    peak_memory,
    seconds,
    table,
    unit,
)
from torch import Tensor

from ccl_cli.evaluation import metrics
from ccl_cli.training.compute.allocator import keep_blocks

CLASSES = 309

Features = tuple[Tensor, Tensor, Tensor, Tensor]


def made_up(queries: int, gallery: int, width: int) -> Features:
    """Features that are not negative, gathered around their classes' centres; labels."""
    torch.manual_seed(0)
    labels = torch.randint(0, CLASSES, (queries + gallery,))
    features = torch.randn(queries + gallery, width)
    features += 0.3 * torch.randn(CLASSES, width)[labels]
    features.relu_()
    return features[:queries], labels[:queries], features[queries:], labels[queries:]


def product(features: Features) -> dict[str, float]:
    """The scores alone, block by block."""
    queries, gallery = (metrics.directions(each)[0] for each in features[::2])
    for _ in metrics.score_blocks(queries, gallery):
        pass
    return {}


def neighbours(features: Features) -> dict[str, float]:
    """The ten nearest, as `ccl search` finds them, and recall from them."""
    queries, gallery = (metrics.directions(each)[0] for each in features[::2])
    blocks = metrics.score_blocks(queries, gallery)
    return recall(torch.cat([scores.topk(10, dim=1).indices for _, scores in blocks]), features)


def faiss_search(features: Features) -> dict[str, float]:
    """The ten nearest, and recall from them."""
    import faiss

    queries, gallery = (metrics.directions(each)[0] for each in features[::2])
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.numpy())
    _, places = index.search(queries.numpy(), 10)
    return recall(torch.from_numpy(places), features)


def recall(places: Tensor, features: Features) -> dict[str, float]:
    relevant = features[3][places] == features[1][:, None]
    return {f"r{k}": 100 * float(relevant[:, :k].any(dim=1).double().mean()) for k in (1, 5, 10)}


WORKS: dict[str, Callable[[Features], dict[str, float]]] = {
    "matrix product alone": product,
    "ours: recall and mean average precision": lambda features: metrics.retrieval(*features),
    "ours: 10 nearest": neighbours,
    "faiss IndexFlatIP: 10 nearest": faiss_search,
}


def once(name: str, options: argparse.Namespace) -> dict[str, Any]:
    work = WORKS[name]
    keep_blocks()  # as any run of ccl on a CPU does
    features = made_up(options.queries, options.gallery, options.width)
    work(tuple(each[:20].clone() for each in features))  # loads and starts what is loaded and started once
    before, figures = peak_memory(anew=True), {}
    taken = seconds(lambda: figures.update(work(features)))
    return {"seconds": taken, "bytes": peak_memory() - before, "figures": figures}


def main() -> None:
    options = arguments(__doc__, queries=1000, gallery=20_000, width=512, rounds=3, paper=False)
    if options.paper:
        options.queries, options.gallery = 15_000, 184_000
    has_faiss = find_spec("faiss") is not None
    heading("Evaluation: retrieval", "torch", "numpy", *(["faiss-cpu"] if has_faiss else []))
    works = [name for name in WORKS if has_faiss or "faiss" not in name]
    report(in_turns(once, works, options.rounds, options), options)
    if not has_faiss:
        print("faiss is not installed here: left out.\n")


def report(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    flop = 2 * options.queries * options.gallery * options.width
    inputs = 4 * (options.queries + options.gallery) * options.width
    print(
        f"{options.queries:,} queries, {options.gallery:,} gallery videos, {options.width} dimensions, "
        f"{torch.get_num_threads()} threads: {flop / 1e9:,.0f} GFLOP,\n{megabytes(inputs)} MB of features; "
        f"all scores at once would be {megabytes(4 * options.queries * options.gallery)} MB. "
        f"Median of {options.rounds} in turns.\n"
    )
    floor = median(each["seconds"] for each in results["matrix product alone"])
    rows = []
    for name, rounds in results.items():
        taken, grown = (median(each[key] for each in rounds) for key in ("seconds", "bytes"))
        figures = ", ".join(f"{key} {value:.4f}" for key, value in rounds[0]["figures"].items())
        rows.append([name, figure(taken), figure(flop / taken / 1e9), f"{taken / floor:.2f}"])
        rows[-1] += [megabytes(grown), figures]
    table(["work", unit(), "GFLOP/s", "times the product", "grown, MB", "figures, percent"], rows)


if __name__ == "__main__":
    main()
