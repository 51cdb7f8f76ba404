"""What each method's arithmetic costs, against a step of the student.

    python benchmarks/method_overhead.py [--batch 16] [--size 112] [--steps 2] [--rounds 20]
    python benchmarks/method_overhead.py --small       # a quick try that says little

The step is the trainer's with cross-entropy alone. A method's arithmetic is the forward and backward pass of
its terms, from the student's feature, scores and stages on, with the embeddings of an audio and an image
teacher at hand as from a cache, and the update of the method's own layers. One row in eight has no sound.
Both are timed by themselves, all methods in turns: a difference of two steps would drown in their noise.
`ratio` is what a step with the method takes, in multiples of one without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from measuring import alternately, arguments, figure, heading, median, table, unit
from step import AUDIO, CLASSES, IMAGE, WIDTH, example, methods_with_teachers, our_step, setting
from torch import Tensor

from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.clips.transforms import normalize
from ccl_cli.methods import Method
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.teachers.standardize import Moments, fit
from ccl_cli.training.build import load_method, make_student
from ccl_cli.training.standardizers import Standardizer, Standardizers

VIDEOS, LIMIT = 5000, 1.05


class Case(NamedTuple):
    """A method with options, and what its teachers' embeddings go through before."""

    method: str
    options: Mapping[str, object] = MappingProxyType({})
    standardize: str = "none"


# Besides every registered method as it is.
VARIANTS = {
    "fitnet, mlp_bn and logsum": Case("fitnet", {"regressor": "mlp_bn", "loss": "logsum"}),
    "ccl, official": Case("ccl", {"preset": "official"}),
    "ccl, without composition": Case("ccl", {"composition": False}),
    "ccl, zscore": Case("ccl", standardize="zscore"),
    "ccl, phi_s": Case("ccl", standardize="phi_s"),
}


def student_output(batch: Batch, options: argparse.Namespace) -> StudentOutput:
    """What the student says of the batch, as the leaves of a graph: the methods' gradients end here."""
    network = make_student(options.student, CLASSES, with_weights=False).eval()
    clip = example(options, cached=True)[1]
    with torch.no_grad():
        output = network(normalize(batch.video, clip.mean, clip.std))
    return StudentOutput(
        output.feature.clone().requires_grad_(),
        output.logits.clone().requires_grad_(),
        tuple(stage.clone().requires_grad_() for stage in output.stages),
    )


def standardizers(kind: str) -> Standardizers:
    """As a run makes them of a cache; none for ``none``."""
    if kind == "none":
        return Standardizers({})
    moments = Moments(WIDTH)
    moments.add(torch.randn(4 * WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)).relu())
    transform = fit(kind, moments, AUDIO)
    return Standardizers({name: Standardizer(kind, WIDTH, transform) for name in (AUDIO, IMAGE)})


def arithmetic(case: Case, student: StudentOutput, batch: Batch) -> Callable[[], None]:
    """The terms forward and backward, and the update of what the method trains."""
    torch.manual_seed(0)
    labels = torch.randint(CLASSES, (VIDEOS,))
    labels[batch.rows] = batch.labels
    of_run = replace(setting(batch, student.feature.shape[1]), labels=labels, epochs=300)
    method: Method = load_method(case.method, dict(case.options), of_run).train()
    transform = standardizers(case.standardize)
    trained = [each for each in method.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=5e-4) if trained else None
    everyone = torch.ones(len(batch.labels), dtype=torch.bool)
    present = {AUDIO: torch.arange(len(everyone)) % 8 != 0, IMAGE: everyone}
    teachers = {name: Embedding(batch.inputs[name].value, present[name]) for name in (AUDIO, IMAGE)}
    leaves = [student.feature, student.logits, *student.stages]

    def work() -> None:
        for leaf in leaves:
            leaf.grad = None
        terms: Mapping[str, Tensor] = method(student, transform(teachers), batch)
        torch.stack(list(terms.values())).sum().backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()

    return work


def report(step: float, methods: dict[str, float], options: argparse.Namespace) -> None:
    print(
        f"{options.student}, batch {options.batch} of {options.frames}x{options.size}x{options.size}, "
        f"float32, {torch.get_num_threads()} threads: a step with cross-entropy alone takes\n"
        f"{figure(step)} {unit()} (median of {options.steps}). Two teachers of {WIDTH} dimensions, "
        f"{VIDEOS:,} videos; methods: median of {options.rounds} rounds in turns.\n"
    )
    ordered = sorted(methods.items(), key=lambda item: -item[1])
    rows = [[name, figure(1000 * taken), f"{1 + taken / step:.4f}"] for name, taken in ordered]
    table(["method", f"1/1000 {unit()}", "ratio"], rows)
    above = [name for name, taken in ordered if 1 + taken / step > LIMIT]
    print(f"Above {LIMIT}: {', '.join(above) or 'none'}.")


def main() -> None:
    numbers = {"batch": 16, "frames": 16, "size": 112, "steps": 2, "rounds": 20}
    options = arguments(__doc__, student="r2plus1d_18", **numbers, small=False)
    if options.small:
        options.student, options.frames, options.size, options.rounds = "r2plus1d_tiny", 8, 32, 3
    heading("What a method costs", "torch")
    step = our_step(options, method="baseline", student=options.student)
    alone = median(alternately({"step": step}, options.steps)["step"])
    del step  # a copy of the student, its optimiser, and gigabytes
    batch, _ = example(options, cached=True)
    student = student_output(batch, options)
    cases = {name: Case(name) for name in methods_with_teachers()} | VARIANTS
    works = {name: arithmetic(case, student, batch) for name, case in cases.items()}
    report(alone, {name: median(each) for name, each in alternately(works, options.rounds).items()}, options)


if __name__ == "__main__":
    main()
