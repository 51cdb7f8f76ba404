"""Checks of distillation methods on random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import BaseModel
from torch import Tensor

from ccl_cli import registry
from ccl_cli.config.load import method_options
from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.manifest import UNLABELLED
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Method, Setting, TeacherInfo
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.testing.verdicts import Checks, Skip, Unmet, Verdict, expect, expect_finite, expect_movable

_ROWS, _VIDEOS, _CLASSES, _DIM = 8, 24, 3, 6
# Two teachers share a modality, all dimensions differ, and the first equals the student's.
_TEACHERS = (TeacherInfo("a:one", "a", 6), TeacherInfo("a:two", "a", 9), TeacherInfo("b:one", "b", 4))


class Example(NamedTuple):
    """Outputs of student and teachers for a batch.

    Attributes:
        leaves: Feature ``[B, 6]``, logits ``[B, 3]`` and stage of the student, which require gradients.
        teachers: Embeddings by teacher; absent rows are zero.
        batch: Labels and row indices.
    """

    leaves: tuple[Tensor, ...]
    teachers: dict[str, Embedding]
    batch: Batch


@dataclass
class Trial:
    """A method's class and helpers to run it."""

    name: str
    cls: type[Method]

    def build(self, teachers: int = 2, *, labelled: bool = True) -> Method:
        """Build the method with default options and a fixed seed."""
        torch.manual_seed(0)
        labels = torch.arange(_VIDEOS) % _CLASSES if labelled else torch.full((_VIDEOS,), UNLABELLED)
        setting = Setting(_DIM, _CLASSES if labelled else 0, labels, _TEACHERS[:teachers], 5)
        return self.cls(method_options(self.cls, self.name, {}), setting)

    def terms(self, method: Method, example: Example) -> dict[str, Tensor]:
        """Run a forward pass, seeded by the step."""
        torch.manual_seed(1)
        feature, logits, stage = example.leaves
        student = StudentOutput(feature, logits, (stage, feature[:, :, None, None, None]))
        return method(student, example.teachers, example.batch)  # type: ignore[no-any-return]

    def gradients(self, method: Method, example: Example) -> list[Tensor]:
        """Gradients at the student's outputs; skips methods without terms."""
        terms = self.terms(method, example)
        if not terms:
            raise Skip("it adds no terms")
        loss = sum(terms.values()) + 0 * sum(leaf.sum() for leaf in example.leaves)
        loss.backward()  # type: ignore[union-attr]
        return [leaf.grad for leaf in example.leaves if leaf.grad is not None]


check = Checks[Trial]()


def verdicts(method: type[Method] | str) -> Iterator[Verdict]:
    """Check a method, given by its name or class."""
    if isinstance(method, str):
        plugin = registry.find(registry.METHODS, method)
        trial = Trial(method, registry.load(plugin))
        with registry.blaming(plugin):
            trial.build()
    else:
        trial = Trial(method.__name__, method)
    with torch.random.fork_rng(devices=[]):
        yield from check.verdicts(trial)


@check()
def _options(trial: Trial) -> None:
    options = trial.cls.Options
    derived = isinstance(options, type) and issubclass(options, BaseModel)
    expect(derived, f"Options is {options!r}. Derive it from ccl_cli.methods.MethodOptions.")
    try:
        method_options(trial.cls, trial.name, {"no_such_option": 1})
    except RecipeError:
        pass
    else:
        raise Unmet("an unknown option is accepted. Derive Options from ccl_cli.methods.MethodOptions.")
    if trial.cls.uses_teachers:
        expect(
            trial.cls.tuned in options.model_fields,
            f"no option '{trial.cls.tuned}', which `ccl bench --tune` scales. "
            "Set the class attribute tuned to the option with the weight of the loss.",
        )


@check("options")
def _terms(trial: Trial) -> None:
    terms = trial.terms(trial.build(), example())
    named = isinstance(terms, dict) and all(isinstance(name, str) for name in terms)
    expect(named, f"a {type(terms).__name__} instead of named terms. Return {{'name': term}}.")
    for name, term in terms.items():
        scalar = isinstance(term, Tensor) and term.dim() == 0 and term.is_floating_point()
        expect(scalar, f"'{name}' is not one number. Use ccl_cli.utils.distributed.masked_mean.")
        expect_finite(term, of=f"in '{name}'")


@check("terms")
def _seed(trial: Trial) -> None:
    one, again = (trial.terms(trial.build(), example()) for _ in range(2))
    expect(_equal(one, again), "different terms for the same seed. Use torch's global generator.")


@check("seed")
def _absent_rows(trial: Trial) -> None:
    plain, noisy = example(), example()
    for name, (value, present, stages) in noisy.teachers.items():
        noisy.teachers[name] = Embedding(torch.where(present[:, None], value, 7.0), present, stages)
    pairs = zip(*(trial.gradients(trial.build(), each) for each in (plain, noisy)), strict=True)
    expect(
        all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in pairs),
        "a gradient that depends on rows without the teacher. "
        "Average with ccl_cli.utils.distributed.masked_mean(values, present).",
    )


@check("terms")
def _hard_batches(trial: Trial) -> None:
    cases = {
        "without any row of a teacher": example(present=()),
        "for a batch of one row": example(rows=1),
        "for a batch of one class": example(labels=[0] * _ROWS),
        "with one teacher": example(1),
        "with three teachers": example(3),
    }
    for when, given in cases.items():
        _expect_finite_gradients(trial.build(len(given.teachers)), trial, given, when)


@check("terms")
def _without_labels(trial: Trial) -> None:
    if trial.cls.needs_labels:
        raise Skip("it requires labels")
    labels = [UNLABELLED] * _ROWS
    _expect_finite_gradients(trial.build(), trial, example(labels=labels), "without labels")
    method, given = trial.build(labelled=False), example(labels=labels, classes=0)
    expect(bool(trial.terms(method, given)), "no terms without labels. Set needs_labels = True.")
    _expect_finite_gradients(method, trial, given, "for a student without classes")


@check("terms")
def _gradient(trial: Trial) -> None:
    gradients = trial.gradients(trial.build(), example())
    expect(
        any(bool(gradient.any()) for gradient in gradients),
        "no gradient at the student's feature, logits or stages. Do not detach them.",
    )


@check("terms")
def _parameters(trial: Trial) -> None:
    for present in (range(_ROWS), ()):
        method = trial.build()
        trial.gradients(method, example(present=present))
        learning = ((name, each) for name, each in method.named_parameters() if each.requires_grad)
        without = [name for name, each in learning if each.grad is None]
        expect(
            not without,
            f"parameters without a gradient with {len(present)} rows present: {', '.join(without[:3])}. "
            "Use every layer in every step; otherwise distributed training waits for its gradient.",
        )


@check("seed")
def _resume(trial: Trial) -> None:
    method, resumed = trial.build(), trial.build()
    trial.terms(method, example())
    resumed.load_state_dict(method.state_dict())
    one, other = (trial.terms(each, example(seed=1)) for each in (method, resumed))
    expect(
        _equal(one, other),
        "a different second step after saving and loading. "
        "Store its state in buffers: self.register_buffer(name, tensor).",
    )


@check()
def _device(trial: Trial) -> None:
    expect_movable(trial.build())


def example(
    teachers: int = 2,
    *,
    rows: int = _ROWS,
    labels: Sequence[int] | None = None,
    classes: int = _CLASSES,
    present: Sequence[int] = (0, 1, 3, 4, 6, 7),
    seed: int = 0,
) -> Example:
    """Create a random batch; without labels, the rows have all classes in turn.

    ``present`` are the rows of the first teacher. If it is empty, all teachers lack all rows; else the others
    have all rows.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    leaves = random(rows, _DIM), random(rows, classes), random(rows, 4, 2, 4, 4)
    embeddings = {}
    for number, info in enumerate(_TEACHERS[:teachers]):
        mask = torch.tensor([bool(present) and (number > 0 or row in present) for row in range(rows)])
        stages = random(rows, 5, 8, 8), random(rows, info.dim, 4, 4)
        embeddings[info.name] = Embedding(
            torch.where(mask[:, None], random(rows, info.dim), 0.0), mask, stages
        )
    targets = torch.tensor(labels if labels is not None else [row % _CLASSES for row in range(rows)])
    batch = Batch(torch.empty(0), targets, torch.arange(rows), {}, 0)
    return Example(tuple(leaf.requires_grad_() for leaf in leaves), embeddings, batch)


def _expect_finite_gradients(method: Method, trial: Trial, given: Example, when: str) -> None:
    gradients = trial.gradients(method, given)
    expect_finite(*gradients, *(each.grad for each in method.parameters()), of=f"in a gradient {when}")


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
