"""Two real processes against one: the gradients must be the same."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.components.memory_bank import ShardedMemoryBank, shard_banks
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training.compute.batch_norm import share_statistics
from ccl_cli.training.distiller import mean_cross_entropy
from ccl_cli.training.standardizers import Standardizer
from ccl_cli.utils.distributed import any_process, from_main, gather_objects, gather_rows, on_main, world_size
from tests.methods import distilling
from tests.reliability.processes import warm_server

pytestmark = pytest.mark.slow

ROWS, DIM, CLASSES = 8, 5, 3
PRESENT = {
    "unequal": [1, 1, 0, 1, 0, 1, 0, 0],
    "one process has none": [1, 1, 0, 1, 0, 0, 0, 0],
    "nobody": [0] * 8,
}
VARIANTS = distilling.VARIANTS | distilling.WITH_BANKS
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 1, 0])
# With a method that needs no labels; the processes have the rows of a permutation.
SOME_LABELS = {
    "crd, some labels": torch.tensor([0, 1, -1, -1, 1, -1, 1, -1]),
    "crd, one label": torch.tensor([-1, -1, -1, 2, -1, -1, -1, -1]),
    "crd, no label": torch.full((8,), -1),
}
VARIANTS |= dict.fromkeys(SOME_LABELS, VARIANTS["crd"])
# Nine videos: the banks' shares are of five and of four. One of these videos is in no batch.
SHARDED = {f"{name} sharded": dict(shard_memory=True) for name in ("crd", "crd relaxed", "cmc", "cmc nce")}
for name, option in SHARDED.items():
    VARIANTS[name] = VARIANTS[name.removesuffix(" sharded")] | option
    SOME_LABELS[name] = torch.cat([LABELS, LABELS[:1]])


class Step(nn.Module):
    """A linear student and a method, as one module to be wrapped."""

    def __init__(self, variant, **changes):
        super().__init__()
        torch.manual_seed(0)
        infos = (TeacherInfo("audio:t", "audio", DIM), TeacherInfo("image:t", "image", 7))
        self.trunk = nn.Linear(4, DIM)
        self.classifier = nn.Linear(DIM, CLASSES)
        self.labels = SOME_LABELS.get(variant, LABELS)
        setting = Setting(DIM, CLASSES, self.labels, infos, 10)
        self.method = distilling.make(variant.partition(",")[0], setting, **VARIANTS[variant] | changes)
        self.double()
        shard_banks(self)

    def forward(self, x, embeddings, rows):
        feature = self.trunk(x).relu()
        stages = tuple(value[:, :, None, None, None] for value in (feature[:, :3], feature))
        student = StudentOutput(feature, self.classifier(feature), stages)
        labels = self.labels[rows]
        batch = Batch(torch.empty(0), labels, rows, {}, 0)
        return mean_cross_entropy(student.logits, labels) + sum(
            self.method(student, embeddings, batch).values()
        )


def data(rank, processes, present, step):
    generator = torch.Generator().manual_seed(1 + step)
    x = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64)
    rows = torch.randperm(ROWS, generator=generator)
    audio = torch.rand(ROWS, DIM, generator=generator, dtype=torch.float64)
    image = torch.rand(ROWS, 7, generator=generator, dtype=torch.float64)
    mask = torch.tensor(PRESENT[present]).bool()
    share = slice(rank * ROWS // processes, (rank + 1) * ROWS // processes)
    embeddings = {
        "audio:t": Embedding((audio * mask[:, None])[share], mask[share]),
        "image:t": Embedding(image[share], torch.ones(ROWS, dtype=torch.bool)[share]),
    }
    return x[share], embeddings, rows[share]


def two_steps(module, rank, processes, present):
    """Gradients, summed over two steps, and buffers after them: memory banks and what belongs to them."""
    for step in range(2):
        module(*data(rank, processes, present, step)).backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    found |= buffers(module)
    return {name.removeprefix("module."): value for name, value in found.items()}


def buffers(module):
    """Copies; of sharded banks all shares."""
    found = {name: buffer.clone() for name, buffer in module.named_buffers()}
    for name, bank in module.named_modules():
        if isinstance(bank, ShardedMemoryBank):
            assert len(bank.entries) == bank.size + 1 == -(-bank.videos // world_size()) + 1
            found[f"{name}.entries"] = gather_rows(bank.entries[:-1])[: bank.videos].clone()
    return found


def resumed(variant, rank):
    """Whether a step from a checkpoint equals one without, to the bit; and the main process's checkpoint."""
    once, again = Step(variant), Step(variant)
    once(*data(rank, 2, "unequal", 0))
    state = from_main(once.state_dict())
    again.load_state_dict(state)
    for each in (once, again):
        each(*data(rank, 2, "unequal", 1)).backward()
    values = [buffers(each) | {name: p.grad for name, p in each.named_parameters()} for each in (once, again)]
    return state, all(torch.equal(value, values[1][name]) for name, value in values[0].items())


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    try:
        find_out(rank, folder)
        gc.collect()  # what wraps a module holds the group too, and must let go of it before its end, as in training
        dist.barrier()
    finally:
        dist.destroy_process_group()


def find_out(rank, folder):
    for variant in VARIANTS:
        for present in PRESENT:
            step = DistributedDataParallel(Step(variant), broadcast_buffers=False)
            torch.save(two_steps(step, rank, 2, present), f"{folder}/{variant}-{present}-{rank}.pt")
    for variant in SHARDED:
        torch.save(resumed(variant, rank), f"{folder}/resumed-{variant}-{rank}.pt")
    torch.save(running_statistics(rank, 2), f"{folder}/standardizer-{rank}.pt")
    step = DistributedDataParallel(normalised(), broadcast_buffers=False)
    torch.save(batch_norm_step(step, rank, 2), f"{folder}/batch-norm-{rank}.pt")
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


def running_statistics(rank, processes):
    """Of a live teacher that is standardised, after two steps."""
    standardizer = Standardizer("zscore", DIM, None).double()
    for step in range(2):
        standardizer(data(rank, processes, "unequal", step)[1]["audio:t"])
    return dict(standardizer.named_buffers())


def normalised():
    """Every kind of batch normalisation, its statistics shared."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ReLU(), nn.BatchNorm3d(3, affine=False, momentum=None),
        nn.Flatten(2), nn.BatchNorm1d(3, track_running_stats=False), nn.Flatten(), nn.Linear(3 * 8, 2), nn.BatchNorm1d(2),
    ).double()  # fmt: skip
    share_statistics(network, torch.device("cpu"))
    return network


def batch_norm_step(module, rank, processes):
    """Gradients and running statistics after two steps, and what evaluation then says."""
    rows = slice(rank * 6 // processes, (rank + 1) * 6 // processes)
    for step in range(2):
        clips = torch.randn(6, 2, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        module(clips[rows]).pow(3).mean().backward()
    found = {name: p.grad for name, p in module.named_parameters()} | dict(module.named_buffers())
    found = {name.removeprefix("module."): value.clone() for name, value in found.items()}
    return found | {"evaluated": module.eval()(clips).detach()}


@pytest.fixture(scope="module")
def results():
    """What each of two processes found, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        warm_server()
        mp.start_processes(worker, (folder,), nprocs=2, start_method="forkserver")
        return {path.stem: torch.load(path, weights_only=True) for path in Path(folder).glob("*.pt")}


def assert_same(actual, expected, rtol=1e-12, atol=1e-12):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_give_the_gradients_of_one(results, variant, present):
    unsharded = dict(shard_memory=False) if variant in SHARDED else {}
    expected = two_steps(Step(variant, **unsharded), 0, 1, present)
    for name, value in expected.items():
        scale = max(1.0, value.double().abs().nan_to_num().max().item())
        for rank in range(2):
            actual = results[f"{variant}-{present}-{rank}"]
            assert actual.keys() == expected.keys()
            torch.testing.assert_close(actual[name], value, rtol=1e-12, atol=1e-13 * scale, equal_nan=True)


@pytest.mark.parametrize("variant", SHARDED)
def test_sharded_banks_go_on_from_a_checkpoint_in_any_number_of_processes(results, variant):
    expected, alone = Step(variant, shard_memory=False), Step(variant)
    # The state of the main process is the one that it sent: its own changes with its next step.
    (_, same), (state, other) = (results[f"resumed-{variant}-{rank}"] for rank in range(2))
    assert same
    assert other
    alone.load_state_dict(state)
    expected(*data(0, 1, "unequal", 0))
    for each in (expected, alone):
        each(*data(0, 1, "unequal", 1)).backward()
    grads = [{name: p.grad for name, p in each.named_parameters()} for each in (alone, expected)]
    assert_same(*grads, atol=1e-13)


@pytest.mark.parametrize("rank", range(2))
def test_running_statistics_and_batch_normalisation_are_those_of_one_process(results, rank):
    assert_same(results[f"standardizer-{rank}"], running_statistics(0, 1))
    assert_same(results[f"batch-norm-{rank}"], batch_norm_step(normalised(), 0, 1), rtol=1e-10)


def test_processes_agree(results):
    facts = results["facts-0"]
    assert facts == results["facts-1"]
    assert facts["any"] == [True, False]
    assert facts["objects"] == [{0: "x"}, {1: "x"}]
    assert facts["error"] == "everywhere"
