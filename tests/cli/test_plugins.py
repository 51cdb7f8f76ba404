"""``ccl plugins ls`` and ``ccl plugins check``, and the whole program beside a package that does not work."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccl_cli import __version__
from ccl_cli.cli.app import OWN
from ccl_cli.testing import teacher as kit
from tests.cli.conftest import spawn
from tests.plugin_folder import BROKEN, install


@pytest.fixture(scope="session")
def broken(tmp_path_factory) -> Path:
    """Where pip has installed ccl-broken, without a network."""
    folder = tmp_path_factory.mktemp("broken")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(folder), str(BROKEN)],
        check=True,
        timeout=120,
    )
    return folder


@pytest.fixture
def beside_broken(broken, monkeypatch):
    """This process has it too."""
    monkeypatch.setattr(sys, "path", [str(broken), *sys.path])
    yield
    for module in [module for module in sys.modules if module.startswith("ccl_broken")]:
        del sys.modules[module]


def every_command() -> Iterator[tuple[str, ...]]:
    yield ()
    for name, (where, _, _) in OWN.items():
        module, _, attribute = where.partition(":")
        app = getattr(importlib.import_module(f"ccl_cli.cli.{module}"), attribute)
        yield (name,)
        yield from ((name, command.name) for command in app.registered_commands if command.name)


# ---- ls


def rows(out: str) -> dict[str, list[str]]:
    return {line.split()[1]: re_split(line) for line in out.splitlines()[1:] if line.strip()}


def re_split(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.mark.usefixtures("beside_broken")
def test_ls_shows_name_package_version_and_state(ccl):
    result = ccl("plugins", "ls")
    assert (result.code, result.err) == (0, "")
    assert result.out.split("\n")[0].split() == ["kind", "name", "package", "version", "state"]
    found = rows(result.out)
    assert found["ccl"] == ["method", "ccl", "ccl-cli", __version__, "installed"]
    assert found["text:gone"] == [
        "teacher",
        "text:gone",
        "ccl-broken",
        "0.0.1",
        "broken: there is no module 'ccl_broken_gone'",
    ]
    assert found["text:raises"][-1] == "installed"  # nothing is imported


@pytest.mark.usefixtures("beside_broken")
@pytest.mark.parametrize(
    ("kind", "name", "state"),
    [
        ("teachers", "text:raises", "broken: RuntimeError: this module never imports"),
        (
            "teachers",
            "text:missing",
            "broken: AttributeError: module 'ccl_broken' has no attribute 'Missing'",
        ),
        ("students", "exits", "broken: SystemExit: 3"),
        ("methods", "no_method", "broken: 'ccl_broken:NUMBER' has no Options"),
        ("methods", "ccl", "loads"),
        ("commands", "broken", "broken: RuntimeError: this module never imports"),
    ],
)
def test_ls_load_says_why_a_plugin_is_broken(ccl, kind, name, state):
    result = ccl("plugins", "ls", kind, "--load")
    assert (result.code, result.err) == (0, "")
    assert rows(result.out)[name][-1] == state


def test_ls_shows_what_is_not_in_the_list_once_and_why(tmp_path):
    install(tmp_path, "bad", b"[ccl.teachers\n")
    install(tmp_path, "leftover", "[ccl.methods]\nx = x:X\n", metadata=False)
    install(tmp_path, "taken", "[ccl.methods]\nccl = t:T\nodd = not a module!\n")
    done = spawn("plugins", "ls", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    beneath = done.stdout.split("Broken, and not in the list:\n")[1].splitlines()
    assert len(beneath) == 4
    for name, reason in [
        ("bad 1.0", "its entry points cannot be read"),
        ("leftover 1.0", "it is half uninstalled"),
        ("taken 1.0", "is no entry point"),
        ("taken 1.0", "already provides that name"),
    ]:
        assert any(name in line and reason in line for line in beneath)


def test_without_anything_broken_nothing_is_said_of_it(ccl):
    assert "Broken" not in ccl("plugins", "ls").out


def test_ls_of_methods_names_papers_and_options(ccl):
    methods = {entry["name"]: entry for entry in json.loads(ccl("methods", "ls", "--json").out)}
    assert methods["rkd"]["paper"] == "Park et al., CVPR 2019"
    assert set(methods["rkd"]["options"]) == {"weight", "distance", "angle", "min_distance"}
    assert all(entry["state"] == "loads" for entry in methods.values())
    assert "Park et al., CVPR 2019" in ccl("methods", "ls").out


def test_ls_of_students_shows_sizes_only_if_it_loads_them(ccl, monkeypatch):
    from ccl_cli import registry

    some = tuple(p for p in registry.plugins(registry.STUDENTS) if p.name in ("r2plus1d_10", "r2plus1d_6"))
    broken = registry.Plugin(registry.STUDENTS, "bad", "builtins:len", "bad", "1.0")  # builds no network
    monkeypatch.setattr(registry, "plugins", lambda group: (*some, broken))
    large, small, bad = json.loads(ccl("students", "ls", "--load", "--json").out)
    assert (large["parameters"], small["parameters"]) == (14_570_503, 132_544)
    assert large["gflop"] == pytest.approx(21.36, abs=0.01)
    assert "parameters" not in bad
    assert "14,570,503" in ccl("students", "ls", "--load").out
    assert "parameters" not in ccl("students", "ls").out


# ---- check


@pytest.mark.parametrize("name", ["fitnet", "r2plus1d_tiny"])
def test_check_prints_a_line_for_each_check(ccl, name):
    result = ccl("plugins", "check", name)
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) >= 10
    assert all(line.startswith(("ok ", "skipped ")) for line in result.out.splitlines())


def test_check_as_json(ccl):
    result = ccl("plugins", "check", "baseline", "--json")
    said = json.loads(result.out)
    assert (said["kind"], said["name"], said["ok"]) == ("method", "baseline", True)
    assert {check["state"] for check in said["checks"]} == {"ok", "skipped"}
    assert all(check["message"] for check in said["checks"] if check["state"] == "skipped")


WRONG = (
    "from ccl_cli.errors import DataError\n"
    "from tests.testing.test_method import EveryRow as Method\n"
    "from tests.testing.test_teacher import Wider\n"
    "class Teacher(Wider):\n    @classmethod\n    def from_spec(cls, spec): return cls()\n"
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
    assert result.code == 5
    (line,) = [line for line in result.out.splitlines() if line.startswith("failed")]
    assert line.startswith(f"failed  {failed} ")
    assert len(line) > 40
    assert result.err.splitlines()[0].startswith(f"Error: {name} fails 1 of ")
    shown = ccl("plugins", "check", name, "--json")
    assert shown.code == 5
    assert json.loads(shown.out)["ok"] is False


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["wrong"], 2, "'wrong' is a student and a method.\n  Say which one with --kind."),
        (["wrong", "--kind", "student"], 5, "Student 'wrong' of wrong 1.0 failed: ValueError: no luck."),
        (["nobody"], 5, "No plugin is named 'nobody'."),
        (["fitnets", "--kind", "method"], 5, "Did you mean 'fitnet'?"),
        (["audio:cnn14"], 6, "The weights of audio:cnn14 are not on this machine"),
        (["folder:absent"], 4, "There is no folder 'absent'."),
        (["fitnet", "--data", "clips"], 2, "A method is not tried on videos."),
        (["image:small?weights=random", "--data", "folder:absent"], 4, "There is no folder 'absent'."),
        (["image:small?weights=random&x=1"], 5, "has no option 'x'"),
        (["image:small?weights"], 5, "No plugin is named"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(ccl, arguments, code, said):
    result = ccl("plugins", "check", *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("wrong")
def test_a_teacher_is_tried_on_the_videos_that_are_named(ccl, clips_folder):
    table = f"image:precomputed@{clips_folder / 'image.npz'}"
    assert ccl("plugins", "check", table).code == 5
    result = ccl("plugins", "check", table, "--data", f"folder:{clips_folder / 'set'}")
    assert result.code == 0, result.out
    assert "ok      tells apart" in result.out


# ---- beside a package that does not work


@pytest.mark.usefixtures("beside_broken")
def test_every_command_has_its_help_beside_broken_plugins(ccl):
    commands = list(every_command())
    assert len(commands) > 30
    for command in commands:
        result = ccl(*command, "--help")
        assert (result.code, result.err) == (0, ""), command
        assert "Usage: " in result.out
    assert "Added by ccl-broken 0.0.1." in ccl("--help").out
    alone = ccl("broken", "--help")
    assert alone.code == 5
    assert "Command 'broken' of ccl-broken 0.0.1 cannot be loaded" in alone.err


@pytest.mark.usefixtures("beside_broken")
@pytest.mark.parametrize(
    "arguments",
    [
        "recipes ls",
        "recipes show smoke",
        "recipes check smoke",
        "plugins ls",
        "plugins info methods ccl",
        "plugins check fitnet",
        "plugins new method mine",
        "data ls",
        "data ls --json",
        "data stats clips?classes=2&per_class=1&size=36&seconds=0.2",
        "teachers ls",
        "teachers ls --json",
        "students ls",
        "methods ls",
        "teachers info audio:small",
        "cache ls",
    ],
)
def test_commands_work_beside_broken_plugins(ccl, arguments):
    result = ccl(*arguments.split())
    assert result.code == 0
    assert result.out
    assert "ccl-broken" not in result.err


def test_it_is_the_program_that_works_beside_them(broken):
    done = spawn("teachers", "ls", PYTHONPATH=str(broken))
    assert (done.returncode, done.stderr) == (0, "")
    assert "ccl-broken" in done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_training_and_evaluation_beside_broken_plugins(broken):
    for command in (["train", "--recipe", "smoke", "--epochs", "1"], ["eval", "--json"]):
        done = spawn(*command, PYTHONPATH=str(broken))
        assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout)["recognition"]["top1"] <= 100
    done = spawn("train", "--recipe", "smoke", "--teacher", "text:raises", PYTHONPATH=str(broken))
    assert done.returncode == 5
    assert "this module never imports" in done.stderr
