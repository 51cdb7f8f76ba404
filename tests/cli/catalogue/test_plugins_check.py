from __future__ import annotations

import json
import sys

import pytest

from ccl_cli.testing import teacher as kit
from tests.helpers.plugin_folder import install


@pytest.mark.parametrize("name", ["baseline", "r2plus1d_tiny"])
def test_check_prints_a_line_for_each_check(ccl, name):
    result = ccl("plugins", "check", name)
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) >= 10
    assert all(line.startswith(("ok ", "skipped ")) for line in result.out.splitlines())
    verdict = json.loads(ccl("plugins", "check", name, "--json").out)
    assert (verdict["name"], verdict["ok"]) == (name, True)
    assert {check["state"] for check in verdict["checks"]} <= {"ok", "skipped"}


WRONG = (
    "from ccl_cli.errors import DataError\n"
    "from tests.testing.methods import mean\n"
    "from tests.testing.teachers import good_but_for\n"
    "Method = mean(lambda values, present: values.mean())\n"
    "class Teacher(good_but_for(dim=6)):\n    @classmethod\n    def from_spec(cls, spec): return cls()\n"
    "def student(num_classes, *, weights=None): raise ValueError('no luck')\n"
    "def source(location):\n    if location != '.': raise DataError('Not there.')\n    return []\n"
)


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """A package whose plugins load, but break their contract."""
    entries = (
        "[ccl.teachers]\nimage.wrong = wrong_mod:Teacher\n[ccl.students]\nwrong = wrong_mod:student\n"
        "[ccl.methods]\nwrong = wrong_mod:Method\nbad = wrong_mod:Method\n"
        "[ccl.datasets]\nempty = wrong_mod:source\n"
    )
    install(tmp_path, "wrong", entries, modules={"wrong_mod": WRONG})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(kit, "run_each", lambda jobs, work, **_: ((job, work(job)) for job in jobs))
    yield
    sys.modules.pop("wrong_mod", None)


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    ("name", "failed"), [("image:wrong", "embedding"), ("bad", "absent rows"), ("empty:.", "manifest")]
)
def test_what_fails_is_a_line_and_exit_code_5(ccl, name, failed):
    result = ccl("plugins", "check", name)
    (line,) = [line for line in result.out.splitlines() if line.startswith("failed")]
    assert line.startswith(f"failed  {failed} ")
    assert result.err.startswith(f"Error: {name} fails 1 of ")
    as_json = ccl("plugins", "check", name, "--json")
    assert (result.code, as_json.code, json.loads(as_json.out)["ok"]) == (5, 5, False)


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("wrong", 2, "'wrong' is a student and a method.\n  Choose one with --kind."),
        ("wrong --kind student", 5, "Student 'wrong' of wrong 1.0 failed: ValueError: no luck."),
        ("nobody", 5, "No plugin is named 'nobody'."),
        ("fitnets --kind method", 5, "Did you mean 'fitnet'?"),
        ("audio:cnn14", 6, "The weights of audio:cnn14 are not on this machine"),
        ("folder:absent", 4, "There is no folder 'absent'."),
        ("fitnet --data clips", 2, "--data applies to teachers only, and 'fitnet' is a method."),
        ("image:small?weights=random --data folder:absent", 4, "There is no folder 'absent'."),
        ("image:small?weights=random&x=1", 5, "has no option 'x'"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(ccl, words, code, sentence):
    result = ccl("plugins", "check", *words.split())
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("wrong")
def test_a_teacher_is_tried_on_the_videos_that_are_named(ccl, clips_folder):
    table = f"image:precomputed@{clips_folder / 'image.npz'}"
    assert ccl("plugins", "check", table).code == 5
    result = ccl("plugins", "check", table, "--data", f"folder:{clips_folder / 'set'}")
    assert (result.code, "ok      tells apart" in result.out) == (0, True), result.out
