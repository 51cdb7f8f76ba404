"""Packages for new plugins: what is written, what is refused, and that one edit makes a working plugin."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ccl_cli import scaffold
from ccl_cli.config.spec import parse_model
from ccl_cli.errors import PluginError, UsageError
from ccl_cli.teachers import Teacher
from tests.helpers.plugin_folder import own_python

NAMES = [
    ("teacher", "my:teacher"),
    ("teacher", "audio:ears"),
    ("student", "mine"),
    ("method", "mine"),
    ("dataset", "films"),
]
# Names that are as long, as odd or as misleading as they may be.
ODD = [
    ("teacher", "a:" + "b" * 32),
    ("teacher", "class:var"),
    ("teacher", "tea:cher"),
    ("student", "student"),
    ("method", "method"),
    ("method", "x-y_z-1"),
    ("dataset", "d" * 32),
]


def code_of(folder: Path) -> Path:
    (path,) = folder.glob("src/*/__init__.py")
    return path


@pytest.mark.parametrize(("kind", "name"), [*NAMES, *ODD])
def test_a_package_whose_entry_point_names_what_is_in_it(kind, name):
    made = scaffold.write(kind, name)
    project = tomllib.loads((made.folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == str(made.folder) == f"ccl-{kind}-" + re.sub("[:_]", "-", name)
    ((entry, value),) = project["entry-points"][f"ccl.{kind}s"].items()
    assert entry == name.replace(":", ".")
    module, _, attribute = value.partition(":")
    assert code_of(made.folder).parent.name == module == str(made.folder).replace("-", "_")
    text = code_of(made.folder).read_text()
    assert re.search(rf"^(class|def) {attribute}\(", text, re.MULTILINE)
    assert text.count(scaffold.MARK) == (2 if kind == "teacher" else 1)  # a teacher's error names it too
    assert "$" not in "".join(path.read_text() for path in made.folder.rglob("*") if path.is_file())
    compile(text, module, "exec")


@pytest.mark.parametrize(("name", "input"), [("my:teacher", "frames"), ("audio:ears", "audio")])
def test_a_teacher_has_no_network_and_names_the_line_to_edit(tmp_path, name, input):
    (tmp_path / "here").mkdir()  # an empty folder is filled
    code = code_of(scaffold.write("teacher", name, Path("here")).folder)
    assert f"window.{input}" in code.read_text()
    classes = [each for each in runpy.run_path(str(code)).values() if isinstance(each, type)]
    (teacher,) = (each for each in classes if issubclass(each, Teacher) and each is not Teacher)
    with pytest.raises(PluginError, match=f"{name} has no network yet") as refused:
        teacher.from_spec(parse_model(name))
    assert f"EDIT HERE in '{code}'" in refused.value.hint


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("method", "ccl", "The method 'ccl' already exists, in ccl-cli"),
        ("dataset", "folder", "The data source 'folder' already exists"),
        ("teacher", "audio:cnn14", "already"),
        ("teacher", "mine:precomputed", "already"),  # any modality has one
        ("teacher", "image:resnet50", "already exists"),  # one of timm's
        ("teacher", "image", "modality:name"),
        ("teacher", "a:b:c", "modality:name"),
        ("teacher", "any:mine", "is reserved"),
        ("method", "my:method", "is not a valid"),
        *(
            ("method", odd, "is not a valid")
            for odd in ("", "My", "1st", "a b", "a\n", "../x", "ä", "x" * 33)
        ),
    ],
)
def test_a_name_that_cannot_be(tmp_path, kind, name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        scaffold.write(kind, name)
    assert list(tmp_path.iterdir()) == []


def test_a_free_name_beside_a_teacher_that_takes_any():
    assert scaffold.write("teacher", "image:nobody_has_this").folder.is_dir()


@pytest.mark.slow
def test_what_is_written_is_typed_and_in_order(tmp_path):
    folders = [
        scaffold.write(kind, name, Path(f"{n}")).folder for n, (kind, name) in enumerate([*NAMES, *ODD])
    ]
    python = [sys.executable, "-m"]
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        done = subprocess.run([*python, *command, "."], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    modules = [str(code_of(folder)) for folder in folders]
    for folder in folders:  # under a name of its own: mypy looks at all of them together
        test = folder / "tests" / f"test_{folder}.py"
        test.write_text((folder / "tests" / "test_contract.py").read_text())
        modules.append(str(test))
    root = Path(__file__).resolve().parents[1]
    sources = [*(str(folder / "src") for folder in folders), str(root), str(root / "plugins")]
    quiet = ["--follow-imports", "silent", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*python, "mypy", "--config-file", "0/pyproject.toml", *quiet, *modules],
        env={**os.environ, "MYPYPATH": os.pathsep.join(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_the_others_work_as_they_are_and_their_tests_pass(tmp_path):
    made = [scaffold.write(kind, name).folder for kind, name in NAMES if kind != "teacher"]
    python = own_python(tmp_path / "venv")
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def call(*words: str) -> str:
        done = subprocess.run(
            [python, "-m", *words], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr

    named = [word for folder in made for word in ("-e", str(folder))]
    call("pip", "install", "-q", "--no-deps", "--no-build-isolation", *named)
    for folder in made:
        call("pytest", "-q", str(folder / "tests"), "-p", "no:cacheprovider", "--rootdir", str(folder))
    call("ccl_cli", "plugins", "check", "mine", "--kind", "student")
    call("ccl_cli", *["train", "--recipe", "smoke", "--epochs", "1", "--student", "mine", "--method", "mine"])
