"""The recipes that ship with ccl: the paper's constants, and two real steps of each on small real files."""

from __future__ import annotations

import json
import math

import pytest

from ccl_cli.config import yaml_text
from ccl_cli.config.load import builtin_recipes, load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.training.build import load_teacher
from ccl_cli.training.train import train

BATCH = {"ucf51": 16, "activitynet": 64, "vggsound": 256}
METHODS = ["fitnet", "pkt", "cckd", "rkd", "crd", "ifd", "cmc", "kd"]
AUDIO, IMAGE = "audio:cnn14", "image:resnet34"
# Benchmarks train many recipes in one; they choose their own size.
EXPERIMENTS = [
    name for name in builtin_recipes() if name.partition("-")[0] in BATCH and load_recipe(name).bench is None
]


# ---- what the paper says


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_the_constants_of_its_data_set(name):
    recipe = load_recipe(name)
    data = name.partition("-")[0]
    assert recipe.data == data
    assert recipe.train.batch_size == BATCH[data]
    assert (recipe.optim.lr, recipe.optim.weight_decay) == (1e-3, 5e-4)
    assert (recipe.optim.momentum, recipe.optim.gamma, recipe.train.epochs) == (
        0.9,
        0.1,
        300,
    )  # official code
    assert (recipe.clip.frames, recipe.clip.size) == (16, 112)
    assert recipe.student == ("r2plus1d_10" if "-official-" in name else "r2plus1d_18")
    drops = [at * recipe.train.epochs if at < 1 else at for at in recipe.optim.milestones]
    assert drops == [150, 225]
    assert recipe.ce_weight == (0.1 if name.endswith("-kd") else 1.0)


@pytest.mark.parametrize("data", BATCH)
@pytest.mark.parametrize(
    ("setup", "teachers", "temperature"),
    [
        ("a", (AUDIO,), {"audio": 0.5}),
        ("i", (IMAGE,), {"image": 0.1}),
        ("ai", (AUDIO, IMAGE), {"audio": 0.5, "image": 0.1}),
    ],
)
def test_ccl_has_the_papers_weights_and_temperatures(data, setup, teachers, temperature):
    recipe = load_recipe(f"{data}-ccl-{setup}")
    assert recipe.teachers == teachers
    assert recipe.method == {"ccl": {"nce_lambda": 0.5, "cls_weight": 1.0, "temperature": temperature}}


@pytest.mark.parametrize("data", BATCH)
@pytest.mark.parametrize("method", METHODS)
def test_other_methods_differ_from_ccl_in_the_objective_only(data, method):
    recipe, ccl = load_recipe(f"{data}-{method}"), load_recipe(f"{data}-ccl-ai")
    assert list(recipe.method) == [method]
    own = {"name", "description", "method", "ce_weight"}
    assert recipe.model_dump(exclude=own) == ccl.model_dump(exclude=own)


@pytest.mark.parametrize("data", BATCH)
def test_baselines_differ_from_ccl_in_method_and_teachers_only(data):
    recipe, ccl = load_recipe(f"{data}-baseline"), load_recipe(f"{data}-ccl-ai")
    assert (recipe.method, recipe.teachers) == ({"baseline": {}}, ())
    own = {"name", "description", "method", "teachers"}
    assert recipe.model_dump(exclude=own) == ccl.model_dump(exclude=own)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if "-official-" in name])
def test_official_recipes_depart_from_the_paper_where_the_official_code_does(name):
    recipe = load_recipe(name)
    assert not recipe.optim.head_lr_decay
    assert recipe.train.precision == "fp32"
    if not name.endswith("-baseline"):
        assert recipe.method["ccl"]["preset"] == "official"
        temperatures = {"audio": 0.5, "image": 0.1}
        modalities = [parse_model(text).kind for text in recipe.teachers]
        assert recipe.method["ccl"]["temperature"] == {kind: temperatures[kind] for kind in modalities}


def test_ablations_are_of_the_data_set_the_paper_has_them_for():
    ablations = {name for name in EXPERIMENTS if load_recipe(name).description.startswith("Ablation")}
    kinds = ("infonce", "no-composition", "no-jsd", "no-nce")
    assert ablations == {f"ucf51-ccl-ai-{kind}" for kind in kinds}


def test_each_file_says_its_own_name_and_description():
    for name, path in builtin_recipes().items():
        values, _ = yaml_text.read(path)
        assert values["name"] == name
        assert values["description"]


# ---- two steps


def small(name: str, clips_folder, teachers: list[str]) -> Recipe:
    """The recipe with everything that costs time made small; method, weights and optimiser are its own."""
    flags = {
        "data": f"folder:{clips_folder / 'set'}",
        "student": "r2plus1d_tiny",
        "teachers": teachers,
        "clip.frames": 4,
        "clip.size": 32,
        "clip.short_side": 48,
        "train.batch_size": 4,
        "train.max_steps": 2,
        "train.log_every": 1,
        "train.workers": 0,
    }
    return load_recipe(name, flags)


def check_two_steps(recipe: Recipe) -> None:
    run = train(recipe)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert all(math.isfinite(value) for line in steps for value in line.values() if isinstance(value, float))
    taught = {key for key in steps[0] if "/" in key}
    assert bool(taught) == bool(recipe.teachers)
    # A teacher is named in the terms it gives, and every one gives at least one.
    assert {key.partition("/")[2] for key in taught} == set(map(label, recipe.teachers))
    assert json.loads((run / "summary.json").read_text())["steps"] == 2
    assert (run / "model.safetensors").is_file()
    assert "extends" not in (run / "recipe.yaml").read_text()


def label(teacher: str) -> str:
    return parse_model(teacher).label


def recipes_by_cost() -> list[object]:
    """All are run with every change, a few of them at once."""
    quick = ("smoke", "demo", "ucf51-baseline", "ucf51-ccl-ai", "ucf51-official-ai")
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in builtin_recipes()]


@pytest.mark.parametrize("name", recipes_by_cost())
def test_two_steps(name, clips_folder):
    """With embeddings from files, which stand in for the teachers' networks."""
    modalities = [parse_model(text).kind for text in load_recipe(name).teachers]
    teachers = [f"{kind}:precomputed@{clips_folder / f'{kind}.npz'}" for kind in modalities]
    check_two_steps(small(name, clips_folder, teachers))


TEACHERS = sorted({text for name in builtin_recipes() for text in load_recipe(name).teachers})


@pytest.mark.parametrize("text", TEACHERS)
def test_the_options_of_every_teacher_named_are_known_to_it(text):
    random = text if "weights=random" in text else f"{text}{'&' if '?' in text else '?'}weights=random"
    teacher = load_teacher(parse_model(random))
    assert teacher.modality == parse_model(text).kind
    assert teacher.random_weights
