"""A distillation method on random numbers, for the tests of every method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, Setting, TeacherInfo
from ccl_cli.registry import METHODS, find, load
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding

CLASSES = 4
BANK = dict(num_negatives=5, dim=4)
# Methods and options by name: the method is the first word.
VARIANTS = {
    "fitnet": {},
    "fitnet linear": dict(regressor="linear"),
    "fitnet norm": dict(regressor="linear_bn_relu"),
    "fitnet logsum": dict(regressor="mlp_bn", loss="logsum"),
    "pkt": {},
    "pkt batchmean": dict(reduction="batchmean"),
    "pkt concat": dict(combine="concat"),
    "cckd": {},
    "cckd bilinear": dict(variant="bilinear"),
    "cckd neighbour": dict(variant="neighbour"),
    "rkd": {},
    "ifd": {},
    "ifd batchmean": dict(reduction="batchmean"),
    "ifd stages": dict(stages="broadcast_last", alpha=3.0),
    "kd": {},
    "kd average": dict(combine="average"),
    "queue_kl": dict(size=12),
    "unic": {},
    "mnf_csc": dict(heads=1),
    "ccl": {},
    "ccl official": dict(preset="official"),
    "ccl joint": dict(gradient="joint", symmetric="mean", divergence="js"),
    "ccl infonce": dict(contrast="infonce"),
    "ccl no composition": dict(composition=False),
}
WITH_BANKS = {
    "crd": BANK,
    "crd relaxed": dict(BANK, positive="same_class", z_momentum=0.9),
    "cmc": BANK,
    "cmc nce": dict(BANK, loss="nce", graph="full"),
}


class Example:
    """One batch: a student's numbers, and teachers ``t0``, ``t1``, ... that lack some rows.

    Attributes:
        feature: [B, D].
        logits: [B, K].
        stage: [B, 3, 2, 4, 4], the student's only inner stage.
        teachers: Values [B, D_m].
        stages: Stages of every teacher.
        present: Masks [B].
    """

    stages: tuple[Tensor, ...] = ()

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

    @property
    def batch(self) -> Batch:
        return Batch(torch.empty(0), self.labels, torch.arange(len(self.labels)), {}, 0)

    def leaves(self) -> tuple[Tensor, ...]:
        return tuple(x.detach().clone().requires_grad_() for x in (self.feature, self.logits, self.stage))

    def student(self, leaves: tuple[Tensor, ...] | None = None) -> StudentOutput:
        feature, logits, stage = leaves or (self.feature, self.logits, self.stage)
        return StudentOutput(feature, logits, (stage, feature[:, :, None, None, None]))

    def embeddings(self, *, zero_absent: bool = True) -> dict[str, Embedding]:
        pairs = zip(self.teachers, self.present, strict=True)
        values = [(torch.where(there[:, None] | (not zero_absent), x, 0.0), there) for x, there in pairs]
        return {f"t{k}": Embedding(*value, self.stages) for k, value in enumerate(values)}

    def select(self, rows: Tensor | Sequence[int]) -> Example:
        """The batch of some of its rows, or in another order."""
        other = Example.__new__(Example)
        rows = torch.as_tensor(rows)
        other.feature, other.logits, other.stage = (x[rows] for x in (self.feature, self.logits, self.stage))
        other.teachers = [value[rows] for value in self.teachers]
        other.present, other.labels = self.present[:, rows], self.labels[rows]
        return other


def make(variant: str, setting: Setting, /, **options) -> Method:
    cls = load(find(METHODS, variant.split()[0]))
    torch.manual_seed(0)
    return cls(cls.Options(**{**(VARIANTS | WITH_BANKS).get(variant, {}), **options}), setting)


def build(variant: str, example: Example, /, *, epochs=20, **options) -> Method:
    infos = tuple(TeacherInfo(f"t{k}", "any", v.shape[1]) for k, v in enumerate(example.teachers))
    setting = Setting(example.feature.shape[1], CLASSES, example.labels, infos, epochs)
    method = make(variant, setting, **options)
    return method.double() if example.feature.dtype == torch.float64 else method


def run(method: Method, example: Example, *, zero_absent: bool = True):
    """Terms, and the gradients of their sum at the student's feature, logits and inner stage."""
    leaves = example.leaves()
    terms = method(example.student(leaves), example.embeddings(zero_absent=zero_absent), example.batch)
    loss = sum(terms.values()) + 0 * sum(leaf.sum() for leaf in leaves)
    return {name: value.detach() for name, value in terms.items()}, torch.autograd.grad(loss, leaves)
