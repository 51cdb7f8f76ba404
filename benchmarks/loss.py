"""The multi-class contrast, forward and backward: ours against the published (B, B, D) form.

    python benchmarks/loss.py [--batches 16 64 256 1024] [--width 512] [--rounds 10]

The published form takes the difference of every anchor and every candidate, and guards its logarithms with
1e-10. It is written here from its description, as a reference only. Both are timed in turns. Memory is told
in two ways: the bytes that autograd keeps for the backward pass, and by how much a process of its own grew,
at most, while it took one forward and backward pass (below a few MB that is noise). A form that would need
more than the memory at hand is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import psutil
import torch
import torch.nn.functional as F
from measuring import (
    alternately,
    arguments,
    figure,
    heading,
    in_process,
    median,
    megabytes,
    peak_memory,
    table,
    unit,
)
from torch import Tensor

from ccl_cli.methods.components.losses import cosine_scores, multiclass_nce
from ccl_cli.training.compute.allocator import keep_blocks

TEMPERATURE, CLASSES, GUARD = 0.1, 51, 1e-10


def published(first: Tensor, second: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    difference = F.normalize(first, dim=1)[:, None] - F.normalize(second, dim=1)[None]  # [B, B, D]
    cosine = 1 - difference.pow(2).sum(dim=2) / 2
    p = (cosine / temperature).softmax(dim=1)
    positive = (labels[:, None] == labels).float()
    negative = 1 - positive
    log_p, log_not_p = torch.log(p + GUARD), torch.log(1 - p + GUARD)
    own = (log_p * positive).sum(dim=1) / positive.sum(dim=1)
    return -(own + (log_not_p * negative).sum(dim=1) / negative.sum(dim=1)).mean()


def ours(first: Tensor, second: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    present = torch.ones(len(labels), dtype=torch.bool)
    scores = cosine_scores(first, second, temperature)
    return multiclass_nce(scores, labels[:, None] == labels, present).mean()


FORMS = {"published": published, "ours": ours}


def example(batch: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features as a network's last rectifier yields them, and labels."""
    torch.manual_seed(0)
    first, second = (torch.randn(batch, width).relu().requires_grad_() for _ in range(2))
    return first, second, torch.randint(0, CLASSES, (batch,))


def step(form: Callable[..., Tensor], inputs: tuple[Tensor, Tensor, Tensor]) -> Callable[[], None]:
    def work() -> None:
        inputs[0].grad = inputs[1].grad = None
        form(*inputs).backward()

    return work


def saved_bytes(form: Callable[..., Tensor], inputs: tuple[Tensor, Tensor, Tensor]) -> int:
    """What autograd keeps besides the inputs; storage that several tensors share is counted once."""
    storages: dict[int, int] = {}
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # what has been freed could not be told from what takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        form(*inputs)
    for tensor in inputs:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def growth(form: str, batch: int, width: int) -> int:
    """Bytes by which this process grows, at most, in one step."""
    work = step(FORMS[form], example(batch, width))
    step(FORMS[form], example(2, 2))()  # what is loaded with the first step is not the form's
    before = peak_memory(anew=True)
    work()
    return peak_memory() - before


def row(batch: int, options: argparse.Namespace) -> list[object]:
    inputs, width = example(batch, options.width), options.width
    # Four such tensors are alive at the peak: difference, square, and their gradients.
    room = psutil.virtual_memory().available > 1.25 * 4 * batch * batch * width * 4
    forms = FORMS if room else {"ours": ours}
    rounds = max(3, options.rounds // 3) if batch >= 1024 else options.rounds
    keep_blocks()  # as any run of ccl on a CPU does
    seconds = alternately({name: step(form, inputs) for name, form in forms.items()}, rounds)
    times = {name: 1000 * median(values) for name, values in seconds.items()}
    saved = {name: saved_bytes(form, inputs) for name, form in forms.items()}
    grown = {name: in_process(growth, name, batch, width) for name in forms}
    cells = [batch, *(figure(times[name]) if name in times else "too large" for name in FORMS)]
    cells += [f"{times['published'] / times['ours']:.1f}" if room else ""]
    return cells + [
        megabytes(sizes[name]) if name in sizes else "" for sizes in (saved, grown) for name in FORMS
    ]


def saturation() -> None:
    """Negatives that take all of the softmax, placed so that value and gradient can be told by hand."""
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[-0.8, 0.6], [0.8, -0.6]])  # scores 20 below and 20 above, 15 above and 15 below
    rows = [["by hand", "70", "30", "40"]]
    for name, form in FORMS.items():
        anchors = first.clone().requires_grad_()
        loss = form(anchors, second, torch.tensor([0, 1]), 0.04)
        loss.backward()
        rows.append([name, *map(figure, (loss.item(), *anchors.grad.norm(dim=1).tolist()))])
    print("Two anchors, each with a negative that takes its whole softmax (temperature 0.04).\n")
    table(["form", "loss", "gradient's norm, first", "second"], rows)


def main() -> None:
    options = arguments(__doc__, batches=[16, 64, 256, 1024], width=512, rounds=10)
    heading("Loss", "torch")
    print(
        f"Multi-class contrast (Eq. 4), forward and backward, float32, width {options.width}, "
        f"{CLASSES} classes;\nmedian of {options.rounds} rounds in turns "
        f"({max(3, options.rounds // 3)} from batch 1024 on). Times in 1/1000 {unit()}, memory in MB.\n"
    )
    columns = ["batch", "published", "ours", "ratio"]
    columns += ["kept, published", "kept, ours", "grown, published", "grown, ours"]
    table(columns, [row(batch, options) for batch in options.batches])
    saturation()


if __name__ == "__main__":
    main()
