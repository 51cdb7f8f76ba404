from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from ccl_cli import __version__
from ccl_cli.cli.app import OWN, app
from ccl_cli.errors import DataError, MultipleErrors, RecipeError
from tests.cli.conftest import every_command, spawn
from tests.helpers.plugin_folder import install

GROUPS = ("report", "model", "data", "recipes", "teachers", "students", "methods", "cache", "plugins")
WIDE = {("data", "prepare"), ("data", "pack")}  # examples of more than 80 letters
# Groups, and what writes a page or a picture.
WITHOUT_JSON = {
    (),
    *((group,) for group in GROUPS),
    ("report", "html"),
    ("report", "figure"),
    ("data", "show"),
}


@pytest.mark.parametrize("command", list(every_command()), ids=" ".join)
def test_every_command_has_help_with_examples_that_fits(ccl, monkeypatch, command):
    columns = 120 if command in WIDE else 80
    monkeypatch.setenv("COLUMNS", str(columns))
    result = ccl(*command, "-h")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= columns
    assert all(option in result.out for option in ("--quiet", "--verbose", "--debug"))
    assert ("--json" in result.out) == (command not in WITHOUT_JSON)
    examples = result.out.partition("Examples")[2].split("\n", 1)[1].splitlines()
    assert any(examples)
    assert all(line.strip().startswith("ccl ") for line in examples if line.strip())  # none is broken in two
    if command in {(group,) for group in GROUPS} | {()}:
        assert ccl(*command) == result
    if len(command) == 1:
        assert OWN[command[0]][2] in " ".join(result.out.split("╭")[0].split())


def test_version(ccl):
    assert ccl("--version").out == f"ccl {__version__}\n"


@pytest.mark.parametrize("arguments", [["train", "--help"], []])
def test_help_imports_nothing_slow(arguments):
    code = (
        "import sys\nfrom ccl_cli.__main__ import main\n"
        f"main({arguments})\n"
        "slow = {'torch', 'timm', 'numpy', 'av', 'accelerate', 'pytorchvideo', 'torchvision', 'torchaudio',\n"
        "        'yaml', 'matplotlib', 'ccl_cli.config.recipe', 'ccl_plugins', 'click'}\n"
        "print(*(slow & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("trian", 2, "No such command 'trian'. Did you mean 'train'?"),
        ("probe", 2, "Did you mean 'teachers probe'?"),
        ("xyz", 2, "No such command 'xyz'."),
        ("teachers pul", 2, "Did you mean 'pull'?"),
        ("train --foo", 2, "No such option: --foo"),
        ("train --epochs x", 2, "'--epochs'"),
        ("train --set x", 2, "key=value"),
        ("train --recipe smok", 3, "No recipe 'smok'."),
        ("train --data clips --epochs 0", 3, "train.epochs: must be greater than 0, got 0"),
        ("train --data clips --teacher audio:cnn15", 5, "Did you mean 'audio:cnn14'?"),
        ("train --data clips --method cll", 5, "No method 'cll'."),
        ("teachers info audio", 5, "No teacher 'audio'."),
        ("recipes show", 2, "Missing argument"),
        ("eval absent", 4, "absent"),
        ("search a --index", 2, "`ccl search --help` describes the arguments"),
    ],
)
def test_errors_are_sentences_on_stderr_with_their_exit_code(ccl, words, code, sentence):
    result = ccl(*words.split())
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("Error: ")
    assert sentence in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (MultipleErrors([RecipeError("One."), DataError("Two.", "Do it.")]), 3, ["One.", "Two.", "  Do it."]),
        (KeyboardInterrupt(), 130, []),
        (ValueError("odd\nvalue"), 1, ["Internal error: ValueError: odd value", "  --debug shows"]),
        (OSError(28, "No space left", "/x"), 6, ["No space left: '/x'.", "  Free some disk space"]),
        (type("OutOfMemoryError", (RuntimeError,), {})(), 6, ["The GPU's memory is full.", "  Reduce"]),
    ],
    ids=["several", "ctrl-c", "bug", "disk", "gpu"],
)
def test_what_a_command_raises(ccl, monkeypatch, error, code, lines):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("ccl_cli.config.load.builtin_recipes", fail)
    result = ccl("recipes", "ls")
    assert result.code == code
    for line, begin in zip(result.err.splitlines(), lines, strict=True):
        assert line.removeprefix("Error: ").startswith(begin)
    assert not lines or "in fail" in ccl("--debug", "recipes", "ls").err


def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m ccl_cli recipes show smoke | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def test_a_package_can_add_a_command(tmp_path):
    source = (
        "import typer\napp = typer.Typer()\n@app.command()\n"
        "def main(name: str) -> None:\n    print('hello', name)\n"
    )
    install(tmp_path, "greet", "[ccl.commands]\ngreet = greet_mod:app\n", modules={"greet_mod": source})
    assert "Added by greet 1.0." in spawn("--help", PYTHONPATH=str(tmp_path)).stdout
    done = spawn("greet", "you", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "hello you\n")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ccl t", {"train", "teachers"}),
        ("ccl train --teacher ", {"audio:cnn14", "audio:small", "image:resnet34", "image:small"}),
        ("ccl train --recipe sm", {"smoke"}),
        ("ccl methods info c", {"ccl", "cckd", "crd", "cmc"}),
        ("ccl train --precision ", {"auto", "fp32", "bf16", "fp16"}),
    ],
)
def test_names_complete(monkeypatch, capsys, words, offered):
    monkeypatch.setenv("_CCL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit):
        app([], prog_name="ccl")
    assert set(capsys.readouterr().out.split()) == offered


def test_completion_is_quiet_and_imports_no_torch(tmp_path):
    install(tmp_path, "bad", b"[ccl.teachers\n")
    code = (
        "import sys\nfrom ccl_cli.__main__ import main\n"
        "try:\n    main([])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    words = {"_CCL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "ccl train --teacher "}
    env = words | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "audio" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("place", [0, 1, 3], ids=["before", "between", "after"])
@pytest.mark.parametrize(
    ("flags", "levels"),
    [([], "info warning"), (["-q"], ""), (["-v"], "debug info warning"), (["--debug"], "debug info warning")],
)
def test_verbosity_before_between_and_after_the_words(ccl, monkeypatch, place, flags, levels):
    def load(*args, **kwargs):
        for level in ("debug", "info", "warning"):
            logging.getLogger("ccl.test").log(getattr(logging, level.upper()), "a line of %s", level)
        raise RecipeError("Enough.")

    monkeypatch.setattr("ccl_cli.config.load.load_recipe", load)
    words = ["recipes", "show", "smoke"]
    result = ccl(*words[:place], *flags, *words[place:])
    assert [line.split()[-1] for line in result.err.splitlines() if "a line of" in line] == levels.split()
    assert "Error: Enough." in result.err
    assert result.out == ""
