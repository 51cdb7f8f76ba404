"""Two real processes against one: the gradients must be the same."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ccl_cli.data.batch import Batch
from ccl_cli.distributed import any_process, gather_objects, masked_mean, on_main
from ccl_cli.losses import cross_entropy
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.ccl import CCL, CCLOptions
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding

ROWS, DIM, CLASSES = 8, 5, 3
PRESENT = {
    "unequal": [1, 1, 0, 1, 0, 1, 0, 0],
    "one process has none": [1, 1, 0, 1, 0, 0, 0, 0],
    "nobody": [0] * 8,
}
VARIANTS = {
    "paper": {},
    "official": dict(preset="official"),
    "joint": dict(gradient="joint", symmetric="mean"),
    "infonce": dict(contrast="infonce"),
    "no composition": dict(composition=False),
}


class Step(nn.Module):
    """A linear student and a method, as one module to be wrapped."""

    def __init__(self, options):
        super().__init__()
        torch.manual_seed(0)
        infos = (TeacherInfo("audio:t", "audio", DIM), TeacherInfo("image:t", "image", 7))
        self.trunk = nn.Linear(4, DIM).double()
        self.classifier = nn.Linear(DIM, CLASSES).double()
        self.method = CCL(CCLOptions(**options), Setting(DIM, CLASSES, torch.zeros(ROWS, dtype=torch.long), infos)).double()

    def forward(self, x, embeddings, labels):
        feature = self.trunk(x).relu()
        student = StudentOutput(feature, self.classifier(feature))
        batch = Batch(torch.empty(0), labels, torch.arange(len(labels)), {}, 0)
        everyone = torch.ones_like(labels, dtype=torch.bool)
        ce = masked_mean(cross_entropy(student.logits, labels), everyone)
        return ce + sum(self.method(student, embeddings, batch).values())


def data(rank, processes, present):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (ROWS,), generator=generator)
    audio = torch.rand(ROWS, DIM, generator=generator, dtype=torch.float64)
    image = torch.rand(ROWS, 7, generator=generator, dtype=torch.float64)
    mask = torch.tensor(PRESENT[present]).bool()
    share = slice(rank * ROWS // processes, (rank + 1) * ROWS // processes)
    embeddings = {
        "audio:t": Embedding((audio * mask[:, None])[share], mask[share]),
        "image:t": Embedding(image[share], torch.ones(ROWS, dtype=torch.bool)[share]),
    }
    return x[share], embeddings, labels[share]


def gradients(module, inputs):
    module(*inputs).backward()
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    try:
        for name, options in VARIANTS.items():
            for present in PRESENT:
                step = DistributedDataParallel(Step(options), broadcast_buffers=False)
                torch.save(gradients(step, data(rank, 2, present)), f"{folder}/{name}-{present}-{rank}.pt")
        facts = {
            "any": [any_process(rank == 1, torch.device("cpu")), any_process(False, torch.device("cpu"))],
            "objects": gather_objects({rank: "x"}),
            "main": on_main(lambda: os.getpid()),
        }
        try:
            on_main(lambda: 1 / 0)
        except ZeroDivisionError:
            facts["error"] = "everywhere"
        torch.save(facts, f"{folder}/facts-{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def results():
    """What each of two processes found, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, (folder,), nprocs=2)
        return {path.stem: torch.load(path, weights_only=True) for path in Path(folder).glob("*.pt")}


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_give_the_gradients_of_one(results, variant, present):
    expected = gradients(Step(VARIANTS[variant]), data(0, 1, present))
    for rank in range(2):
        actual = results[f"{variant}-{present}-{rank}"]
        assert actual.keys() == expected.keys()
        for parameter, grad in expected.items():
            torch.testing.assert_close(actual[parameter], grad, rtol=1e-12, atol=1e-14)


def test_processes_agree(results):
    facts = results["facts-0"]
    assert facts == results["facts-1"]
    assert facts["any"] == [True, False]
    assert facts["objects"] == [{0: "x"}, {1: "x"}]
    assert facts["error"] == "everywhere"
