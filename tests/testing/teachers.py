"""Good teachers of images and of sound, and teachers that are wrong in one thing each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ccl_cli.teachers import Teacher

SET_UP: dict[str, int] = {}  # what this process knows, and no worker


@dataclass(frozen=True)
class Pixels:
    size: int = 8
    fault: str = ""
    views: ClassVar[str | None] = "frame"
    dtype: ClassVar[torch.dtype] = torch.float32

    @property
    def shape(self):
        return (3, self.size, self.size)

    def __call__(self, window):
        number = int(window.rng.integers(len(window.frames))) if window.training else len(window.frames) // 2
        value = self.small(window.frames[number].permute(2, 0, 1))
        match self.fault:
            case "other type":
                return value.double()
            case "never there":
                return None
            case "own dice":
                return value + torch.rand(()) if window.training else value
            case "always random":
                return value + int(window.rng.integers(1000)) / 1000
            case "works where it was set up":
                return value * SET_UP.get("scale", 1)
            case "student's view":
                return self.small(window.student_view[:, 0])
            case "all frames":
                return self.small(window.frames.float().mean(dim=0).permute(2, 0, 1))
        return value

    def small(self, picture):
        return F.adaptive_avg_pool2d(picture[None].float() / 255, self.size)[0]


class Clip(Pixels):
    views = "clip"


class Track(Pixels):
    views = "track"


class MadeUpViews(Pixels):
    views = "video"


class HoldsFunction(Pixels):
    def __init__(self):
        super().__init__()
        object.__setattr__(self, "scale", lambda value: value)


@dataclass(frozen=True)
class HoldsTable(Pixels):
    table: bytes = bytes(2_000_000)


class Nameless:
    """No dataclass: its repr is an address."""

    shape, dtype = (3, 8, 8), torch.float32

    def __call__(self, window):
        return Pixels()(window)


class Reticent(Nameless):
    def __init__(self):
        self.size = 8

    def __repr__(self):
        return "Reticent()"


@dataclass(frozen=True)
class Sound:
    length: int = 1600
    silence: bool = False
    views: ClassVar[str | None] = "track"
    dtype: ClassVar[torch.dtype] = torch.float32

    @property
    def shape(self):
        return (self.length,)

    def __call__(self, window):
        samples = window.audio(rate=16_000, seconds=1.0)
        if samples is None:
            return torch.zeros(self.length) if self.silence else None
        return samples.repeat(-(-self.length // len(samples)))[: self.length]


class Good(Teacher):
    modality = "image"
    dim = 5

    def __init__(self, preprocess=None):
        super().__init__()
        self.preprocess = preprocess or Pixels()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Linear(torch.Size(self.preprocess.shape).numel(), 5)
            self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(self.network(x.flatten(1)))


def sees(preprocess):
    """A good network behind a preprocessing."""
    return lambda: Good(preprocess)


def good_but_for(**changes):
    """A good teacher but for attributes and methods of its class."""
    return type("Wrong", (Good,), changes)


def forward(change):
    """A good teacher whose embeddings are changed."""
    return good_but_for(forward=lambda self, x: change(Good.forward(self, x)))


def left_behind():
    teacher = Good()
    teacher.mean = torch.zeros(5)
    return teacher


def odd_classes(self, x):
    return 10 * self(x)[:, :3]


WRONG = [
    ("attributes", good_but_for(modality="")),
    ("input", sees(Pixels(fault="other type"))),
    ("input", sees(Pixels(fault="never there"))),
    ("draws", sees(Pixels(fault="own dice"))),
    ("draws", sees(Pixels(fault="always random"))),
    ("pickling", sees(HoldsFunction())),
    ("pickling", sees(HoldsTable())),
    ("repr", sees(Nameless())),
    ("repr", sees(Reticent())),
    ("views", sees(Pixels(fault="student's view"))),
    ("views", sees(Pixels(fault="all frames"))),
    ("views", sees(Track())),
    ("views", sees(MadeUpViews())),
    ("views", sees(Clip())),
    ("missing modality", sees(Sound(silence=True))),
    ("embedding", good_but_for(dim=6)),
    ("embedding", forward(lambda made: made / 0)),
    ("tells apart", forward(torch.ones_like)),
    ("determinism", forward(lambda made: F.dropout(made, 0.5))),
    ("batch", forward(lambda made: made - made.mean(dim=0))),
    ("fingerprint", good_but_for(fingerprint="1234")),
    ("fingerprint", good_but_for(fingerprint=property(lambda self: str(self.network.weight.sum().item())))),
    ("stages", good_but_for(forward_stages=lambda self, x: (2 * self(x), ()))),
    ("stages", good_but_for(forward_stages=lambda self, x: (self(x), (self(x).flatten(),)))),
    ("classes", good_but_for(classes=("one", "two", "three"), class_probabilities=odd_classes)),
    ("device", left_behind),
]
