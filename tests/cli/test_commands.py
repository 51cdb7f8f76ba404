from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ccl_cli import __version__
from ccl_cli.config.load import builtin_recipes, load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.teachers import weights
from tests.cli.conftest import spawn
from tests.plugin_folder import install

# ---- train


@pytest.fixture
def trained(monkeypatch):
    """What `ccl train` hands to the trainer."""
    calls = []

    def train(recipe, **rest):
        calls.append((recipe, rest))
        return Path("runs/x/y")

    monkeypatch.setattr("ccl_cli.training.train.train", train)
    return calls


def test_the_main_line(ccl, trained):
    result = ccl("train", "--teacher", "audio:cnn14", "--teacher", "image:resnet34", "--data", "ucf51")
    assert (result.code, result.out) == (0, "runs/x/y\n")
    ((recipe, rest),) = trained
    assert recipe == Recipe(data="ucf51", teachers=("audio:cnn14", "image:resnet34"))
    assert rest == {"resume": None, "output": None, "dry_run": False}


def test_every_flag_reaches_its_place(ccl, trained):
    flags = (
        "--data clips --teacher audio:cnn14 --student r2plus1d_tiny --method baseline --epochs 2 --batch-size 3 --lr 0.5 "
        "--schedule cosine --precision bf16 --seed 4 --workers 0 --max-steps 6 --name n --tracker tensorboard --output o --dry-run"
    )
    assert ccl("train", *flags.split()).out == ""
    ((recipe, rest),) = trained
    assert recipe == load_recipe(
        overrides=[
            "name=n",
            "data=clips",
            "teachers=audio:cnn14",
            "student=r2plus1d_tiny",
            "method=baseline",
            "optim={lr: 0.5, schedule: cosine}",
            "train={epochs: 2, batch_size: 3, precision: bf16, seed: 4, workers: 0, max_steps: 6, tracker: tensorboard}",
        ]
    )
    assert rest == {"resume": None, "output": Path("o"), "dry_run": True}


@pytest.mark.parametrize("flag", ["--recipe", "--config"])
def test_only_typed_flags_override_the_recipe(ccl, trained, flag):
    assert (
        ccl("train", flag, "smoke", "--epochs", "9", "--set", "train.seed=5", "--set", "train.epochs=8").code
        == 0
    )
    ((recipe, _),) = trained
    smoke = load_recipe("smoke")
    assert recipe == smoke.model_copy(
        update={"train": smoke.train.model_copy(update={"epochs": 8, "seed": 5})}
    )


def test_nothing_is_trained_when_something_is_not_installed(ccl, trained):
    result = ccl("train", "--data", "ucf5", "--teacher", "audio:cnn1", "--method", "cll")
    assert result.code == 5
    assert result.err.count("Error: ") == 3
    assert trained == []


def test_resume_takes_the_recipe_of_the_run(ccl, trained, tmp_path):
    run = tmp_path / "runs" / "before"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: before\ndata: clips\ntrain: {epochs: 2}\n")
    assert ccl("train", "--resume", str(run), "--workers", "0").code == 0
    ((recipe, rest),) = trained
    assert (recipe.name, recipe.train.epochs, recipe.train.workers) == ("before", 2, 0)
    assert rest["resume"] == run


def test_resume_auto_takes_the_recipe_that_is_named(ccl, trained):
    assert ccl("train", "--recipe", "smoke", "--resume", "auto").code == 0
    ((recipe, rest),) = trained
    assert (recipe, rest["resume"]) == (load_recipe("smoke"), "auto")


def test_resume_of_nothing(ccl, trained):
    result = ccl("train", "--resume", "absent/run")
    assert result.code != 0
    assert "absent/run" in result.err
    assert trained == []


@pytest.mark.parametrize("command", [["train", "--recipe", "smoke"], ["eval"]])
def test_several_processes_are_launched_with_the_same_words(ccl, monkeypatch, trained, command):
    launched = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(
        "ccl_cli.utils.launch.launch", lambda count, words: launched.append((count, words)) or 7
    )
    words = [*command, "--num-processes", "3"]
    monkeypatch.setattr(sys, "argv", ["ccl", *words])
    assert ccl(*words).code == 7
    assert launched == [(3, words)]
    assert trained == []


def test_a_process_that_was_launched_trains(ccl, monkeypatch, trained):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert ccl("train", "--recipe", "smoke", "--num-processes", "3").code == 0
    assert len(trained) == 1


# ---- eval

RESULT = {
    "recognition": {
        "top1": 50.0,
        "top5": 100.0,
        "mean_class": 25.0,
        "per_class": {"a": {"top1": 50.0, "videos": 2}, "b": {"top1": 0.0, "videos": 1}},
    },
    "retrieval": {"r1": 10.0, "r5": 20.0, "r10": 30.123, "map": 5.0},
    "counts": {},
}


@pytest.fixture
def evaluated(monkeypatch):
    """What `ccl eval` hands to the evaluation."""
    calls = []

    def evaluate(run, *, tasks, **rest):
        calls.append((run, set(tasks), rest))
        return {key: value for key, value in RESULT.items() if key in tasks or key == "counts"}

    monkeypatch.setattr("ccl_cli.evaluation.evaluate.evaluate", evaluate)
    return calls


@pytest.mark.parametrize(
    ("flags", "tasks"),
    [
        ([], {"recognition", "retrieval"}),
        (["--retrieval"], {"retrieval"}),
        (["--recognition"], {"recognition"}),
        (["--retrieval", "--recognition"], {"recognition", "retrieval"}),
    ],
)
def test_both_tasks_unless_one_is_named(ccl, evaluated, flags, tasks):
    assert ccl("eval", *flags).code == 0
    ((run, asked, rest),) = evaluated
    assert (run, asked) == (None, tasks)
    assert rest == {"data": None, "split": "test", "batch_size": None, "precision": "fp32", "workers": None}


def test_flags_of_eval(ccl, evaluated):
    flags = "runs/a/b --data clips --split val --batch-size 3 --precision bf16 --workers 0"
    ccl("eval", *flags.split())
    ((run, _, rest),) = evaluated
    assert run == Path("runs/a/b")
    assert rest == {"data": "clips", "split": "val", "batch_size": 3, "precision": "bf16", "workers": 0}


def test_json_is_one_object_and_nothing_else(ccl, evaluated):
    result = ccl("eval", "--json")
    assert result.out.count("\n") == 1
    assert json.loads(result.out) == RESULT


def test_the_table(ccl, evaluated):
    lines = [line.split() for line in ccl("eval").out.splitlines()]
    assert ["top-1", "50.00"] in lines
    assert ["mean", "of", "classes", "25.00"] in lines
    assert ["R@10", "30.12"] in lines
    assert ["mAP", "5.00"] in lines
    assert ["a", "50.00", "2"] not in lines
    assert ["a", "50.00", "2"] in [line.split() for line in ccl("eval", "--per-class").out.splitlines()]


@pytest.mark.parametrize(
    "command", [["train", "--recipe", "smoke"], ["eval"], ["eval", "--json"]], ids=" ".join
)
def test_only_the_first_of_several_processes_writes_results(ccl, monkeypatch, trained, evaluated, command):
    monkeypatch.setenv("RANK", "1")
    assert ccl(*command).out == ""
    monkeypatch.setenv("RANK", "0")
    assert ccl(*command).out != ""


# ---- recipes


def test_recipes_ls(ccl):
    lines = ccl("recipes", "ls").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(builtin_recipes())
    for line in lines[1:]:
        name, description = line.split(maxsplit=1)
        assert description == load_recipe(name).description


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("smoke", ["smoke"]),
        ("ucf51", ["ucf51", "ucf51-bench", "ucf51-official"]),
        ("*-bench", [f"{data}-bench" for data in ("activitynet", "synthetic", "ucf51", "vggsound")]),
    ],
)
def test_recipes_ls_of_a_pattern(ccl, pattern, names):
    listed = [line.split()[0] for line in ccl("recipes", "ls", pattern).out.splitlines()[1:]]
    assert listed == names


def test_recipes_ls_of_nothing(ccl):
    result = ccl("recipes", "ls", "hmdb")
    assert result.code == 2
    assert "No built-in recipe is named like 'hmdb'." in result.err


def test_recipes_ls_fits_a_narrow_terminal():
    """The table needs five columns beside the cells; descriptions that wrap would double the list."""
    descriptions = {name: load_recipe(name).description for name in builtin_recipes()}
    longest = max(map(len, descriptions))
    assert [name for name, text in descriptions.items() if longest + len(text) + 5 > 80] == []


def test_recipes_show_is_a_recipe_again(ccl, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(ccl("recipes", "show", "smoke", "--set", "train.epochs=7").out)
    assert load_recipe(str(path)) == load_recipe("smoke", {"train.epochs": 7})


def test_recipes_check(ccl, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("data: clips\n")
    bad.write_text("data: clip\nmethod: {ccl: {jds: 1}}\n")
    assert ccl("recipes", "check", str(good)).out == f"{good}: ok\n"
    result = ccl("recipes", "check", str(good), str(bad), "smok")
    assert (result.code, result.out) == (5, f"{good}: ok\n")
    errors = [line for line in result.err.splitlines() if line.startswith("Error")]
    assert len(errors) == 3
    assert f"{bad}: No dataset 'clip'." in errors[0]
    assert f"{bad}: method.ccl.jds: there is no such key." in errors[1]
    assert "No recipe 'smok'." in errors[2]


def test_recipes_check_without_a_name_checks_all_built_in_ones(ccl):
    assert ccl("recipes", "check").out == "".join(f"{name}: ok\n" for name in builtin_recipes())


# ---- teachers


def test_teachers_ls(ccl):
    lines = ccl("teachers", "ls").out.splitlines()
    (row,) = [line.split() for line in lines if "audio:cnn14" in line]
    assert row == ["teacher", "audio:cnn14", "ccl-cli", __version__, "installed"]


@pytest.mark.parametrize(
    ("name", "modality", "dim"),
    [
        ("audio:cnn14", "audio", "512"),
        ("audio:cnn14?dim=2048", "audio", "2048"),
        ("image:resnet34", "image", "512"),
        ("flow:precomputed", "flow", "known once its weights are here"),
    ],
)
def test_teachers_info(ccl, name, modality, dim):
    result = ccl("teachers", "info", name)
    assert result.code == 0
    lines = result.out.splitlines()
    assert f"modality  {modality}" in lines
    assert f"dim       {dim}" in lines


def test_teachers_info_says_where_weights_are_or_belong(ccl, tmp_path):
    out = ccl("teachers", "info", "audio:cnn14").out
    place = tmp_path / "cache" / "weights" / "Cnn14_emb512_mAP=0.420.pth"
    assert f"not here yet; `ccl teachers pull 'audio:cnn14'` puts it at {place}" in out
    assert "https://zenodo.org/" in out
    assert "CC BY 4.0" in out
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    out = ccl("teachers", "info", "audio:cnn14").out
    assert "not here yet" not in out
    assert str(place) in out


def test_teachers_pull(ccl, monkeypatch, tmp_path):
    pulled = []

    def pull(file, progress=None):
        pulled.append(file.filename)
        return tmp_path / file.filename

    monkeypatch.setattr(weights, "pull", pull)
    result = ccl("teachers", "pull", "audio:cnn14")
    assert result.out == f"{tmp_path / 'Cnn14_emb512_mAP=0.420.pth'}\n"
    assert "https://zenodo.org/" in result.err
    assert ccl("teachers", "pull", "audio:cnn14?weights=random").out == ""
    assert pulled == ["Cnn14_emb512_mAP=0.420.pth"]


def test_teachers_pull_of_several_files_says_where_all_are_listed(ccl, monkeypatch):
    files = [weights.WeightFile(name, f"https://example.org/{name}") for name in ("config.json", "net.pth")]
    monkeypatch.setattr("ccl_plugins.cnn14.Cnn14.weight_files", classmethod(lambda cls, spec: files))
    monkeypatch.setenv("CCL_OFFLINE", "1")
    result = ccl("teachers", "pull", "audio:cnn14")
    assert result.code == 6
    assert "config.json was not downloaded" in result.err
    assert "All 2 files: `ccl teachers info audio:cnn14`" in result.err


def test_a_teacher_that_others_wrote(tmp_path):
    source = '''
from ccl_cli.teachers import Teacher

class Words(Teacher):
    """Counts words.

    Options: none.
    """

    modality, dim = "text", 3

    @classmethod
    def from_spec(cls, spec):
        return cls()

    def forward(self, x):
        return x
'''
    install(
        tmp_path, "words", "[ccl.teachers]\ntext.words = words_mod:Words\n", modules={"words_mod": source}
    )
    done = spawn("teachers", "info", "text:words", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "words 1.0" in done.stdout
    assert "dim       3" in done.stdout
    assert "Counts words." in done.stdout


def test_plugins_info_lists_a_methods_options_with_their_defaults(ccl):
    result = ccl("plugins", "info", "methods", "ccl")
    assert result.code == 0
    assert "nce_lambda" in result.out
    assert "Eq. 5-6" in result.out
    assert ccl("plugins", "info", "methods", "clc").code == 5
