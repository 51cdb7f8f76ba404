"""Lists and descriptions of plugins, and the whole program beside a package that does not work."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from ccl_cli import __version__, registry
from tests.cli.conftest import spawn
from tests.helpers.plugin_folder import install, install_broken

FEW_CLIPS = "clips:?classes=2&per_class=1&size=36&seconds=0.2"


@pytest.fixture
def broken(tmp_path) -> Path:
    """Where ccl-broken is installed."""
    install_broken(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def beside_broken(broken, monkeypatch):
    """This process has it too."""
    monkeypatch.setattr(sys, "path", [str(broken), *sys.path])
    yield
    for module in [module for module in sys.modules if module.startswith("ccl_broken")]:
        del sys.modules[module]


def rows(out: str) -> dict[str, list[str]]:
    """The cells of each line, by the name in its second cell."""
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()[1:]]
    return {cells[1]: cells for cells in lines if cells}


@pytest.mark.usefixtures("beside_broken")
def test_ls_shows_name_package_version_and_state(ccl):
    result = ccl("plugins", "ls")
    assert (result.code, result.err) == (0, "")
    assert result.out.split("\n")[0].split() == ["kind", "name", "package", "version", "state"]
    states = rows(result.out)
    assert states["ccl"] == ["method", "ccl", "ccl-cli", __version__, "installed"]
    assert states["text:gone"][2:] == ["ccl-broken", "0.0.1", "broken: there is no module 'ccl_broken_gone'"]
    assert states["text:raises"][-1] == "installed"  # nothing is imported


@pytest.mark.usefixtures("beside_broken")
@pytest.mark.parametrize(
    ("kind", "name", "state"),
    [
        ("teachers", "text:raises", "broken: RuntimeError: this module never imports"),
        ("methods", "ccl", "loads"),
        ("commands", "broken", "broken: RuntimeError: this module never imports"),
    ],
)
def test_ls_load_says_why_a_plugin_is_broken(ccl, kind, name, state):
    assert rows(ccl("plugins", "ls", kind, "--load").out)[name][-1] == state


def test_ls_shows_what_is_not_in_the_list_once_and_why(tmp_path):
    install(tmp_path, "bad", b"[ccl.teachers\n")
    install(tmp_path, "taken", "[ccl.methods]\nccl = t:T\n")
    done = spawn("plugins", "ls", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.split("Broken plugins:\n")[1].splitlines()
    assert "bad 1.0" in first
    assert "already provides that name" in second


def test_ls_of_methods_names_papers_and_options(ccl):
    methods = {entry["name"]: entry for entry in json.loads(ccl("methods", "ls", "--json").out)}
    assert set(methods["rkd"]["options"]) == {"weight", "distance", "angle", "min_distance"}
    assert "Park et al., CVPR 2019" in ccl("methods", "ls").out


@pytest.mark.parametrize(
    ("words", "facts", "option"),
    [
        ("methods info ccl", {"name": "ccl"}, "nce_lambda"),
        ("students info r2plus1d_6", {"parameters": 132_544}, "weights"),
        ("data info ucf51", {"name": "ucf51"}, "split"),
    ],
)
def test_info_shows_options_with_their_defaults(ccl, words, facts, option):
    result, described = ccl(*words.split()), json.loads(ccl(*words.split(), "--json").out)
    assert facts.items() <= described.items()
    assert described["package"] == f"ccl-cli {__version__}"
    assert described["description"] in result.out
    assert "Args:" not in described["description"]
    options = {each["option"]: each["meaning"] for each in described["options"]}
    assert option in options
    assert any(line.startswith(option) for line in result.out.splitlines())
    assert option != "split" or options[option] == "Official split, 1 to 3; the paper uses 1."
    assert ccl(*words.split()[:2], "nobody").code == 5


def test_info_of_a_class_without_a_description_shows_none_of_its_base(ccl, tmp_path, monkeypatch):
    source = "from ccl_cli.methods import Method\nclass Plain(Method):\n    def compare(self, *_): ...\n"
    install(tmp_path, "bare", "[ccl.methods]\nplain = bare:Plain\n", modules={"bare": source})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert json.loads(ccl("methods", "info", "plain", "--json").out)["description"] == ""


def test_ls_of_students_shows_sizes_only_if_it_loads_them(ccl, monkeypatch):
    small = registry.find(registry.STUDENTS, "r2plus1d_6")
    broken = registry.Plugin(registry.STUDENTS, "bad", "builtins:len", "bad", "1.0")  # builds no network
    monkeypatch.setattr(registry, "plugins", lambda group: (small, broken))
    good, bad = json.loads(ccl("students", "ls", "--load", "--json").out)
    assert good["parameters"] == 132_544
    assert good["gmac"] > 0
    assert "parameters" not in bad
    assert "132,544" in ccl("students", "ls", "--load").out
    assert "parameters" not in ccl("students", "ls").out


@pytest.mark.usefixtures("beside_broken")
def test_a_broken_command_is_listed_and_fails_alone(ccl):
    assert "Added by ccl-broken 0.0.1." in ccl("--help").out
    alone = ccl("broken", "--help")
    assert (alone.code, "cannot be loaded" in alone.err) == (5, True)


COMMANDS = f"""recipes check smoke
bench bench.yaml --dry-run
plugins ls
plugins check fitnet
plugins new method mine
data ls
data check {FEW_CLIPS}
teachers ls
students ls
methods info ccl
cache ls"""


@pytest.mark.usefixtures("beside_broken")
@pytest.mark.parametrize("words", COMMANDS.splitlines())
def test_commands_work_beside_broken_plugins_and_json_is_one_document(ccl, tmp_path, words):
    bench = {"setups": {"A": "audio:small?weights=random"}, "methods": {"ccl": "ccl"}}
    Path("bench.yaml").write_text(json.dumps({"extends": "smoke", "data": FEW_CLIPS, "bench": bench}))
    result = ccl(*words.split())
    assert result.code == 0, result.err
    assert "ccl-broken" not in result.err
    shutil.rmtree(tmp_path / "ccl-method-mine", ignore_errors=True)
    json.loads(ccl(*words.split(), "--json").out)


@pytest.mark.long
def test_training_and_evaluation_beside_broken_plugins(broken):
    for command in (["train", "--recipe", "smoke", "--epochs", "1"], ["eval", "--json"]):
        done = spawn(*command, PYTHONPATH=str(broken))
        assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout)["recognition"]["top1"] <= 100
    done = spawn("train", "--recipe", "smoke", "--teacher", "text:raises", PYTHONPATH=str(broken))
    assert (done.returncode, "this module never imports" in done.stderr) == (5, True)
