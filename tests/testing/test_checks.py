"""Every check of ``ccl plugins check``, with plugins that are wrong in just that."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import pytest
import torch
from torchvision.models.video import mvit_v2_s

from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError, PluginError, WeightsError
from ccl_cli.registry import METHODS, STUDENTS, names
from ccl_cli.testing import check_dataset, check_method, check_student, check_teacher
from ccl_cli.testing import dataset as dataset_kit
from ccl_cli.testing import method as method_kit
from ccl_cli.testing import student as student_kit
from ccl_cli.testing import teacher as kit
from ccl_cli.testing.clips import made_clips
from tests.helpers.plugin_folder import install
from tests.testing import datasets, methods, students, teachers
from tests.testing.teachers import SET_UP, Clip, Good, Pixels, Sound, good_but_for


@pytest.fixture(scope="module")
def clips():
    with made_clips() as made:
        yield made


@pytest.fixture(autouse=True)
def here(monkeypatch, clips, request):
    """No further process and no further clips, which take long, but with the fixture ``real``."""
    if "real" not in request.fixturenames:
        monkeypatch.setattr(kit, "made_clips", lambda: nullcontext(clips))
        monkeypatch.setattr(kit, "run_each", lambda jobs, work, **_: ((job, work(job)) for job in jobs))


@pytest.fixture
def real():
    pass


def by_check(report):
    return {verdict.check: verdict for verdict in report.verdicts}


def states(report) -> dict[str, str]:
    return {check: verdict.state for check, verdict in by_check(report).items()}


def failed(report) -> list[str]:
    return [verdict.check for verdict in report.failures]


KINDS = {
    "dataset": (dataset_kit, lambda wrong, folder: check_dataset(wrong, str(folder / "set")), datasets.WRONG),
    "method": (method_kit, lambda wrong, _: check_method(wrong), methods.WRONG),
    "student": (student_kit, lambda wrong, _: check_student(wrong), students.WRONG),
    "teacher": (kit, lambda wrong, _: check_teacher(wrong()), teachers.WRONG),
}


@pytest.mark.parametrize(
    ("kind", "check", "wrong"), [(kind, *each) for kind, (_, _, wrong) in KINDS.items() for each in wrong]
)
def test_what_is_wrong_in_one_thing_fails_that_check_alone(clips_folder, kind, check, wrong):
    (verdict,) = KINDS[kind][1](wrong, clips_folder).failures
    assert verdict.check == check
    assert len(verdict.message) > 20
    assert "\n" not in verdict.message


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_plugin_that_fails_it(kind):
    module, _, wrong = KINDS[kind]
    assert {check for check, _ in wrong} == set(module.check.names)


def test_good_plugins_pass_everything_and_leave_the_random_state_alone(clips_folder):
    state = torch.get_rng_state()
    reports = (
        check_dataset(datasets.good, str(clips_folder / "set")),
        check_method(methods.Good),
        check_student(students.Good),
    )
    assert all(set(states(report).values()) == {"ok"} for report in reports)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_apply_or_needs_a_failed_check_is_skipped_and_says_so(tmp_path):
    without = students.says(lambda out: out._replace(stages=()))
    assert "cannot train it" in by_check(check_student(without))["stages"].message
    absent = datasets.each(path=lambda video: video.path.with_suffix(".gone"))
    (tmp_path / "right").mkdir()
    (tmp_path / "right" / "a.mp4").touch()
    assert states(check_dataset(absent, str(tmp_path)))["videos"] == "skipped"
    found = by_check(check_teacher(good_but_for(dim=6)()))
    assert found["batch"].message == "requires 'determinism'"
    assert found["determinism"].message == "requires 'embedding'"
    assert found["fingerprint"].state == "ok"


def test_an_exception_of_the_plugin_is_a_failure_in_one_line():
    def raises(self, x):
        raise ValueError("two\nlines")

    verdict = by_check(check_teacher(good_but_for(forward=raises)()))["embedding"]
    assert str(verdict) == "failed  embedding         it raised ValueError: two lines"


@pytest.mark.parametrize(
    ("check", "name", "error", "message"),
    [
        (check_method, "fitnets", PluginError, "Did you mean 'fitnet'"),
        (check_student, "r2plus1d_19", PluginError, "Did you mean 'r2plus1d_18'"),
        (check_teacher, "audio:smalls", PluginError, "Did you mean 'audio:small'"),
        (check_teacher, "audio:cnn14", WeightsError, "not on this machine"),
        (check_dataset, "folder:absent", DataError, "There is no folder"),
    ],
)
def test_what_cannot_be_built_says_why(check, name, error, message):
    with pytest.raises(error, match=message):
        check(name)


# ---- teachers


def test_a_good_teacher_passes_what_concerns_it_and_is_left_as_it_was():
    teacher = Good().freeze()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    skipped = {check for check, state in states(check_teacher(teacher)).items() if state == "skipped"}
    assert skipped == {"missing modality", "classes"}
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    listening = states(check_teacher(Good(Sound())))
    assert {check for check, state in listening.items() if state != "ok"} == {"classes"}
    assert states(check_teacher(Good(Clip(fault="all frames"))))["views"] == "ok"


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_what_only_works_in_the_process_that_set_it_up(monkeypatch):
    monkeypatch.setitem(SET_UP, "scale", 2)
    assert failed(check_teacher(Good(Pixels(fault="works where it was set up")))) == ["pickling"]


PLUGIN = """
import torch
from tests.testing.teachers import Good

class T(Good):
    @classmethod
    def from_spec(cls, spec):
        made = cls()
        if spec.name == "unseeded":
            torch.nn.init.normal_(made.network.weight)
        return made.freeze()
"""


def test_a_teacher_that_is_another_one_whenever_it_is_built_or_is_named_as_another(tmp_path, monkeypatch):
    points = "[ccl.teachers]\nimage.unseeded = t_mod:T\nflow.mine = t_mod:T\n"
    install(tmp_path, "t", points, modules={"t_mod": PLUGIN})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert failed(check_teacher("image:unseeded")) == ["fingerprint"]
    (verdict,) = check_teacher("flow:mine").failures
    assert verdict.message.startswith("modality is 'image' instead of 'flow', as in its name.")
    monkeypatch.delitem(sys.modules, "t_mod")


@pytest.mark.parametrize("modality", ["audio", "image"])
def test_a_teacher_that_only_knows_some_videos_is_tried_on_those(clips_folder, modality):
    name = f"{modality}:precomputed@{clips_folder / f'{modality}.npz'}"
    assert failed(check_teacher(name)) == ["input"]
    videos = load_data(f"folder:{clips_folder / 'set'}").split("train")[2:6]
    found = states(check_teacher(name, videos))
    assert "failed" not in found.values()
    assert found["tells apart"] == "ok"


def test_the_weights_are_hashed_once_however_often_the_fingerprint_is_asked_for(monkeypatch):
    from ccl_cli import teachers as room

    hashed, real = [], room.hash_tensors
    monkeypatch.setattr(room, "hash_tensors", lambda named: hashed.append(1) or real(named))
    teacher = Good().freeze()
    first = teacher.fingerprint
    teacher.preprocess = Pixels(size=9)
    assert teacher.fingerprint != first  # the settings are looked at every time
    assert len(hashed) == 1


# ---- what comes with ccl


@pytest.mark.usefixtures("real")
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
    found = states(check_teacher(name))
    assert "failed" not in found.values()
    assert found["pickling"] == "ok"


@pytest.mark.parametrize("name", names(METHODS))
def test_built_in_methods_keep_it(name):
    found = states(check_method(name))
    skipped = {check for check, state in found.items() if state == "skipped"}
    assert "failed" not in found.values()
    assert ("without labels" in skipped) == (name in {"baseline", "ccl", "kd", "mnf_csc"})
    assert (len(skipped - {"without labels"}) > 0) == (name == "baseline")


# A transformer of one clip size takes a minute.
MARKS = {"r2plus1d_tiny": ()} | dict.fromkeys(("mvit_base_16x4", "mvit_v2_s"), pytest.mark.long)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=MARKS.get(each, pytest.mark.slow))
        for each in [*names(STUDENTS), "timm:resnet18?shift=true", "timm:vit_tiny_patch16_224"]
    ],
)
def test_built_in_students_keep_it(name):
    assert check_student(name).failures == []


@pytest.mark.slow
def test_a_shallow_transformer_of_one_clip_size_keeps_it(monkeypatch):
    def shallow(**options):
        network = mvit_v2_s(**options)
        del network.blocks[4:14]  # ten alike
        return network

    monkeypatch.setattr("torchvision.models.video.mvit_v2_s", shallow)
    assert check_student("mvit_v2_s").failures == []


@pytest.mark.parametrize(
    "data",
    [
        "folder:{set}",
        "folder:{set}/train?test=0.25&val=0.25",
        "csv:{root}/set.csv",
        "manifest:{root}/set.jsonl",
        "shards:{root}/shards",
        "clips?classes=2&per_class=1&size=36&seconds=0.2",
        "synthetic?motion_groups=2&clips=2&val_clips=0&test_clips=1&size=24&frames=4",
    ],
)
def test_built_in_sources_keep_it(tmp_path, clips_folder, data):
    videos = clips_folder / "set"
    load_data(f"folder:{videos}").save(tmp_path / "set.jsonl")
    rows = (f"{videos}/train/{name}/2.mp4,{name}" for name in ("right", "down"))
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows]))
    if data.startswith("shards"):
        packed = f"csv:{tmp_path / 'set.csv'}", tmp_path / "shards", Settings()
        pack(*packed, workers=0, shard_size=10**6, max_unreadable=0)
    report = check_dataset(data.format(root=tmp_path, set=videos))
    assert set(states(report).values()) == {"ok"}, str(report)
