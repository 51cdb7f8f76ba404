"""A distillation method on random numbers, for the tests of every method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, Setting, TeacherInfo
from ccl_cli.methods.cckd import CCKD
from ccl_cli.methods.components.relational import Rows
from ccl_cli.methods.fitnet import FitNet
from ccl_cli.methods.ifd import IFD
from ccl_cli.methods.kd import KD
from ccl_cli.methods.mnf_csc import MNFCSC
from ccl_cli.methods.pkt import PKT
from ccl_cli.methods.queue_kl import QueueKL
from ccl_cli.methods.rkd import RKD
from ccl_cli.methods.unic import UNIC
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding

CLASSES = 4
VARIANTS = {
    "fitnet": (FitNet, {}),
    "fitnet linear": (FitNet, dict(regressor="linear")),
    "fitnet norm": (FitNet, dict(regressor="linear_bn_relu")),
    "fitnet logsum": (FitNet, dict(regressor="mlp_bn", loss="logsum")),
    "pkt": (PKT, {}),
    "pkt batchmean": (PKT, dict(reduction="batchmean")),
    "pkt concat": (PKT, dict(combine="concat")),
    "cckd": (CCKD, {}),
    "cckd bilinear": (CCKD, dict(variant="bilinear")),
    "cckd neighbour": (CCKD, dict(variant="neighbour")),
    "rkd": (RKD, {}),
    "ifd": (IFD, {}),
    "ifd batchmean": (IFD, dict(reduction="batchmean")),
    "ifd stages": (IFD, dict(stages="broadcast_last", alpha=3.0)),
    "kd": (KD, {}),
    "kd average": (KD, dict(combine="average")),
    "queue_kl": (QueueKL, dict(size=12)),
    "unic": (UNIC, {}),
    "mnf_csc": (MNFCSC, {}),
}


class Example:
    """One batch: a student's numbers, and teachers ``t0``, ``t1``, ... that lack some rows.

    Attributes:
        feature: [B, D] leaf.
        logits: [B, K] leaf.
        stage: [B, 3, 2, 4, 4] leaf, the student's only inner stage.
        teachers: Values [B, D_m].
        present: Masks [B].
    """

    def __init__(self, rows=7, dims=(6, 9), absent=((2, 5), ()), student_dim=6, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def random(*shape):
            return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.feature, self.logits = random(rows, student_dim), random(rows, CLASSES)
        self.stage = random(rows, 3, 2, 4, 4)
        self.teachers = [random(rows, dim) for dim in dims]
        self.present = torch.ones(len(dims), rows, dtype=torch.bool)
        for mask, gone in zip(self.present, absent, strict=False):
            mask[list(gone)] = False
        self.labels = torch.randint(0, CLASSES, (rows,), generator=generator)

    def leaves(self) -> tuple[Tensor, ...]:
        return tuple(x.detach().clone().requires_grad_() for x in (self.feature, self.logits, self.stage))

    def select(self, rows: Tensor | Sequence[int]) -> Example:
        """The batch of some of its rows, or in another order."""
        other = Example.__new__(Example)
        rows = torch.as_tensor(rows)
        other.feature, other.logits, other.stage = (x[rows] for x in (self.feature, self.logits, self.stage))
        other.teachers = [value[rows] for value in self.teachers]
        other.present, other.labels = self.present[:, rows], self.labels[rows]
        return other


def build(variant: str, example: Example, **options) -> Method:
    cls, defaults = VARIANTS[variant]
    infos = tuple(TeacherInfo(f"t{k}", "any", v.shape[1]) for k, v in enumerate(example.teachers))
    torch.manual_seed(0)
    setting = Setting(example.feature.shape[1], CLASSES, example.labels, infos, 20)
    method = cls(cls.Options(**{**defaults, **options}), setting)
    return method.double() if example.feature.dtype == torch.float64 else method


def run(method: Method, example: Example, *, zero_absent: bool = True, epoch: int = 0):
    """Terms, and the gradients of their sum at the student's feature, logits and inner stage."""
    feature, logits, stage = leaves = example.leaves()
    student = StudentOutput(feature, logits, (stage, feature[:, :, None, None, None]))
    embeddings = {}
    for number, (value, present) in enumerate(zip(example.teachers, example.present, strict=True)):
        value = torch.where(present[:, None], value, 0.0) if zero_absent else value
        embeddings[f"t{number}"] = Embedding(value, present)
    batch = Batch(torch.empty(0), example.labels, torch.arange(len(feature)), {}, epoch)
    terms = method(student, embeddings, batch)
    loss = sum(terms.values()) + 0 * sum(leaf.sum() for leaf in leaves)
    return {name: value.detach() for name, value in terms.items()}, torch.autograd.grad(loss, leaves)


class Fixed(nn.Module):
    """A student that says the same whatever it sees."""

    def __init__(self, output: StudentOutput) -> None:
        super().__init__()
        self.output, self.one = output, nn.Parameter(torch.ones(1))
        self.num_classes = output.logits.shape[1]

    def forward(self, video: Tensor) -> StudentOutput:
        return self.output


def rows(x: Tensor) -> Rows:
    return Rows(x, x)


def everyone(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.bool)
