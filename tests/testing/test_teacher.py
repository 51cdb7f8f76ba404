"""Every check of a teacher, with teachers that are wrong in just that."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ccl_cli.data.sources import load_data
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Teacher
from ccl_cli.testing import check_teacher
from ccl_cli.testing import teacher as kit
from ccl_cli.testing.clips import made_clips
from tests.helpers.plugin_folder import install

_SET_UP: dict[str, int] = {}  # what this process knows, and no worker


@dataclass(frozen=True)
class Pixels:
    size: int = 8
    views: ClassVar[str | None] = "frame"

    @property
    def shape(self):
        return (3, self.size, self.size)

    @property
    def dtype(self):
        return torch.float32

    def __call__(self, window):
        number = int(window.rng.integers(len(window.frames))) if window.training else len(window.frames) // 2
        return self.small(window.frames[number].permute(2, 0, 1))

    def small(self, picture):
        return F.adaptive_avg_pool2d(picture[None].float() / 255, self.size)[0]


@dataclass(frozen=True)
class Sound:
    length: int = 1600
    views: ClassVar[str | None] = "track"

    @property
    def shape(self):
        return (self.length,)

    @property
    def dtype(self):
        return torch.float32

    def __call__(self, window):
        samples = window.audio(rate=16_000, seconds=1.0)
        return None if samples is None else samples.repeat(-(-self.length // len(samples)))[: self.length]


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


# ---- inputs; classes of their own, since they are pickled


@dataclass(frozen=True)
class Faulty(Pixels):
    """Pixels with one thing wrong."""

    fault: str = ""

    def __call__(self, window):
        value = super().__call__(window)
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
                return value * _SET_UP.get("scale", 1)
            case "student's view":
                return self.small(window.student_view[:, 0])
        return value


class HoldsFunction(Pixels):
    def __init__(self):
        object.__setattr__(self, "size", 8)
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


class AllFrames(Pixels):
    def __call__(self, window):
        return self.small(window.frames.float().mean(dim=0).permute(2, 0, 1))


class Clip(AllFrames):
    views = "clip"


class DrawnFromClip(Pixels):
    views = "clip"


class WindowAsTrack(Pixels):
    views = "track"


class MadeUpViews(Pixels):
    views = "video"


class Zeros(Sound):
    def __call__(self, window):
        value = super().__call__(window)
        return torch.zeros(self.length) if value is None else value


# ---- networks


class LeftBehind(Good):
    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(5)


def sees(preprocess):
    """A good network behind a preprocessing."""
    return lambda: Good(preprocess)


def good_but_for(**changes):
    """A good teacher but for attributes and methods of its class."""
    return type("Wrong", (Good,), changes)


def forward(change):
    """A good teacher whose embeddings are changed."""
    return good_but_for(forward=lambda self, x: change(Good.forward(self, x)))


WRONG = [
    ("attributes", good_but_for(modality="")),
    ("input", sees(Faulty(fault="other type"))),
    ("input", sees(Faulty(fault="never there"))),
    ("draws", sees(Faulty(fault="own dice"))),
    ("evaluation", sees(Faulty(fault="always random"))),
    ("pickling", sees(HoldsFunction())),
    ("pickling", sees(HoldsTable())),
    ("repr", sees(Nameless())),
    ("repr", sees(Reticent())),
    ("views", sees(Faulty(fault="student's view"))),
    ("views", sees(AllFrames())),
    ("views", sees(WindowAsTrack())),
    ("views", sees(MadeUpViews())),
    ("views", sees(DrawnFromClip())),
    ("missing modality", sees(Zeros())),
    ("embedding", good_but_for(dim=6)),
    ("embedding", forward(lambda made: made / 0)),
    ("tells apart", forward(torch.ones_like)),
    ("determinism", forward(lambda made: F.dropout(made, 0.5))),
    ("batch", forward(lambda made: made - made.mean(dim=0))),
    ("evaluation mode", good_but_for(train=nn.Module.train)),
    ("no gradient", good_but_for(freeze=lambda self: self.eval())),
    ("fingerprint", good_but_for(fingerprint="1234")),
    ("fingerprint", good_but_for(fingerprint=property(lambda self: str(self.network.weight.sum().item())))),
    ("stages", good_but_for(forward_stages=lambda self, x: (2 * self(x), ()))),
    ("stages", good_but_for(forward_stages=lambda self, x: (self(x), (self(x).flatten(),)))),
    (
        "classes",
        good_but_for(
            classes=("one", "two", "three"), class_probabilities=lambda self, x: 10 * self(x)[:, :3]
        ),
    ),
    ("device", LeftBehind),
]
ELSEWHERE = {"another process", "built twice"}  # have tests of their own


@pytest.fixture(scope="module")
def clips():
    with made_clips() as made:
        yield made


@pytest.fixture
def here(monkeypatch, clips):
    """No further process and no further clips: both take long."""
    monkeypatch.setattr(kit, "made_clips", lambda: nullcontext(clips))
    monkeypatch.setattr(kit, "run_each", lambda jobs, work, **_: ((job, work(job)) for job in jobs))


def failed(teacher, *rest) -> list[str]:
    return [verdict.check for verdict in check_teacher(teacher, *rest).failures]


def states(report) -> dict[str, str]:
    return {verdict.check: verdict.state for verdict in report.verdicts}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_a_teacher_that_is_wrong_in_one_thing_fails_that_check_alone(check, wrong):
    (verdict,) = check_teacher(wrong()).failures
    assert verdict.check == check
    assert "\n" not in verdict.message
    assert len(verdict.message) > 20


def test_every_check_has_a_teacher_that_fails_it():
    assert {check for check, _ in WRONG} | ELSEWHERE == set(kit.check.names)


@pytest.mark.usefixtures("here")
def test_a_good_teacher_passes_what_concerns_it():
    found = states(check_teacher(Good()))
    assert set(found) == set(kit.check.names)
    skipped = {check for check, state in found.items() if state == "skipped"}
    assert skipped == {"missing modality", "classes", "built twice"}
    listening = states(check_teacher(Good(Sound())))
    assert {check for check, state in listening.items() if state == "skipped"} == {"classes", "built twice"}
    assert set(listening.values()) == {"ok", "skipped"}
    assert states(check_teacher(Good(Clip())))["views"] == "ok"


@pytest.mark.slow
def test_what_only_works_in_the_process_that_set_it_up(monkeypatch):
    monkeypatch.setitem(_SET_UP, "scale", 2)
    teacher = Good(Faulty(fault="works where it was set up"))
    assert failed(teacher) == ["another process"]
    monkeypatch.delitem(_SET_UP, "scale")
    assert failed(teacher) == []


PLUGIN = """
import torch
from tests.testing.test_teacher import Good

class T(Good):
    @classmethod
    def from_spec(cls, spec):
        made = cls()
        if spec.name == "unseeded":
            torch.nn.init.normal_(made.network.weight)
        return made.freeze()
"""


@pytest.mark.usefixtures("here")
def test_a_teacher_that_is_another_one_whenever_it_is_built_or_is_named_as_another(tmp_path, monkeypatch):
    points = "[ccl.teachers]\nimage.unseeded = t_mod:T\nflow.mine = t_mod:T\n"
    install(tmp_path, "t", points, modules={"t_mod": PLUGIN})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert failed("image:unseeded") == ["built twice"]
    (verdict,) = check_teacher("flow:mine").failures
    assert verdict.message.startswith("modality is 'image' instead of 'flow', as in its name.")
    monkeypatch.delitem(sys.modules, "t_mod")


@pytest.mark.usefixtures("here")
def test_what_needs_a_failed_check_is_skipped_and_says_so():
    found = {verdict.check: verdict for verdict in check_teacher(good_but_for(dim=6)()).verdicts}
    assert found["batch"].message == "requires 'determinism'"
    assert found["determinism"].message == "requires 'embedding'"
    assert found["fingerprint"].state == "ok"


@pytest.mark.usefixtures("here")
def test_an_exception_of_the_plugin_is_a_failure_in_one_line():
    def raises(self, x):
        raise ValueError("two\nlines")

    found = {each.check: each for each in check_teacher(good_but_for(forward=raises)()).verdicts}
    assert str(found["embedding"]) == "failed  embedding         it raised ValueError: two lines"
    assert found["batch"].state == "skipped"


@pytest.mark.usefixtures("here")
def test_a_check_leaves_the_teacher_as_it_was():
    teacher = Good().freeze()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert list(kit.verdicts(teacher))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())


def test_what_cannot_be_built_says_why():
    with pytest.raises(PluginError, match="Did you mean 'audio:small'"):
        check_teacher("audio:smalls")
    with pytest.raises(WeightsError, match="not on this machine"):
        check_teacher("audio:cnn14")


@pytest.mark.parametrize(
    "name",
    [
        "audio:small?weights=random",
        pytest.param("image:small?weights=random", marks=pytest.mark.slow),
        pytest.param("audio:cnn14?weights=random&seconds=1", marks=pytest.mark.slow),
        pytest.param("audio:cnn14?weights=random&dim=2048&seconds=10", marks=pytest.mark.long),
        pytest.param("image:resnet34?weights=random&size=64&input=student_clip", marks=pytest.mark.slow),
        pytest.param("image:resnet34?weights=random&size=64&frame=shared", marks=pytest.mark.slow),
        pytest.param("image:vit_tiny_patch16_224?weights=random", marks=pytest.mark.slow),
    ],
)
def test_built_in_teachers_keep_it(name):
    found = check_teacher(name)
    assert found.failures == []
    assert states(found)["another process"] == states(found)["built twice"] == "ok"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("modality", ["audio", "image"])
def test_a_teacher_that_only_knows_some_videos_is_tried_on_those(clips_folder, modality):
    name = f"{modality}:precomputed@{clips_folder / f'{modality}.npz'}"
    assert failed(name) == ["input"]
    videos = load_data(f"folder:{clips_folder / 'set'}").split("train")[2:6]
    found = states(check_teacher(name, videos))
    assert "failed" not in found.values()
    assert found["tells apart"] == "ok"


def test_the_weights_are_hashed_once_however_often_the_fingerprint_is_asked_for(monkeypatch):
    from ccl_cli import teachers

    hashed = []
    real = teachers.hash_tensors
    monkeypatch.setattr(teachers, "hash_tensors", lambda named: hashed.append(1) or real(named))
    teacher = Good().freeze()
    first = teacher.fingerprint
    teacher.preprocess = Pixels(size=9)
    assert teacher.fingerprint != first  # the settings are looked at every time
    assert len(hashed) == 1
