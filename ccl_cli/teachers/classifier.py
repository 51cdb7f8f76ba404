"""Teachers that end in a linear classifier, which ``ccl teachers fit`` replaces."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.fitted import as_fitted
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.weights import WeightFile, load_state, locate
from ccl_cli.utils.download import reason


class ClassifierTeacher(Teacher):
    """A teacher with a classifier of its own.

    ``from_spec`` accepts the options in ``defaults``, and ``weights``: ``random``, or the name of the data
    set that `ccl teachers fit` used.

    Attributes:
        defaults: Options of the teacher's name, and their defaults.
        classifier_name: Name of the linear layer.
    """

    defaults: ClassVar[Mapping[str, Any]]
    classifier_name: ClassVar[str]

    @classmethod
    def build(cls, spec: Spec, classes: Sequence[str] | None, options: Mapping[str, Any]) -> Self:
        """Build the network without weights.

        Args:
            spec: Name of the teacher, with the file of its weights, if any.
            classes: Classes of a fitted file, or None.
            options: Values of ``defaults`` and ``weights``.

        Raises:
            PluginError: an option is invalid.
        """
        raise NotImplementedError(f"{cls.__name__} does not define build")

    @classmethod
    def published(cls, spec: Spec, options: Mapping[str, Any]) -> Sequence[WeightFile]:
        """The published weights for these options."""
        return ()

    @abstractmethod
    def class_scores(self, x: Tensor) -> Tensor:
        """Logits of ``classes``, ``[B, len(classes)]``."""

    @property
    def network_with_weights(self) -> nn.Module:
        """The module whose tensors a weights file contains."""
        return self

    def from_published(self, state: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
        """Convert the tensors of a weights file to the names of ``network_with_weights``."""
        return state

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """See :meth:`Teacher.from_spec`."""
        spec, classes = as_fitted(spec)
        options = cls.read(spec)
        if options["weights"] == "random":
            with fixed_seed():
                teacher = cls.build(spec, classes, options)
            teacher.random_weights = True
            return teacher.freeze()
        path = locate(spec, *cls.published(spec, options))
        with torch.device("meta"):
            teacher = cls.build(spec, classes, options)
        stored = load_state(path)
        whole = {
            name: value.float() if value.is_floating_point() else value for name, value in stored.items()
        }
        try:
            teacher.network_with_weights.load_state_dict(teacher.from_published(whole, path), assign=True)
        except RuntimeError as error:
            raise WeightsError(f"'{path}' does not fit {spec.label}: {reason(error)[:300]}...") from error
        return teacher.freeze()

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """See :meth:`Teacher.weight_files`."""
        spec, _ = as_fitted(spec)
        options = cls.read(spec)
        return () if spec.weights or options["weights"] else cls.published(spec, options)

    @classmethod
    def read(cls, spec: Spec) -> dict[str, Any]:
        """Validate the options of a spec.

        Raises:
            PluginError: an option is unknown or invalid.
        """
        options = read_options(spec, **cls.defaults, weights="")
        if options["weights"] not in ("", "random") or (options["weights"] and spec.weights):
            raise PluginError(f"{spec.label}: use either weights=random or a weights file after '@'.")
        return options

    @classmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """Build the teacher with a new classifier for ``ccl teachers fit``."""
        teacher = cls.from_spec(spec)
        teacher.classes = tuple(classes)
        old = teacher.get_submodule(cls.classifier_name)
        assert isinstance(old, nn.Linear)
        teacher.set_submodule(cls.classifier_name, nn.Linear(old.in_features, len(classes)))
        return teacher

    def class_probabilities(self, x: Tensor) -> Tensor:
        """Probabilities of ``classes``, ``[B, len(classes)]``; multi-label (sigmoid) for AudioSet."""
        scores = self.class_scores(x)
        return scores.sigmoid() if self.classes == audioset_classes() else scores.softmax(dim=1)

    def own_weights(self) -> Mapping[str, Tensor]:
        """All weights, with the names of published files."""
        return self.network_with_weights.state_dict()


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Draw the same random weights each time, independently of the student's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@functools.cache
def audioset_classes() -> tuple[str, ...]:
    """Names of the 527 AudioSet classes, in the order of the published classifiers."""
    lines = (
        files("ccl_cli.teachers").joinpath("audioset_classes.txt").read_text(encoding="utf-8").splitlines()
    )
    return tuple(line for line in lines if not line.startswith("#"))
