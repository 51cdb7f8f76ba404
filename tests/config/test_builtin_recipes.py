"""The recipes that ship with ccl: the paper's constants, and two real steps of each on small real files."""

from __future__ import annotations

import math

import pytest

from ccl_cli.bench.matrix import final_cells, tune_cells
from ccl_cli.config import yaml_text
from ccl_cli.config.load import builtin_recipes, check_recipe, load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.methods.ccl import CCLOptions
from ccl_cli.training.build import load_teacher
from ccl_cli.training.train import train
from tests.training.runs import lines

AUDIO, IMAGE = "audio:cnn14", "image:resnet34"
BATCH_SIZE = {"ucf51": 16, "activitynet": 64, "vggsound": 256, "ucf51-official": 16}
METHODS = [
    "baseline", "fitnet", "pkt", "cckd", "rkd", "crd", "ifd", "cmc", "kd", "ccl",
    "queue_kl", "unic", "mnf_csc",
]  # fmt: skip


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_recipe_is_valid_says_its_name_and_begins_with_its_command_line(name):
    path = builtin_recipes()[name]
    recipe = load_recipe(name)
    check_recipe(recipe)
    assert recipe.name == name
    values, _ = yaml_text.read(path)
    assert values["description"]  # its own, not the one of the recipe that it extends
    comment = path.read_text().partition("\nname:")[0]
    own = {"demo": "ccl demo", "demo-full": "ccl demo --full"}.get(name, f"ccl bench {name}")
    assert f"ccl train --recipe {name}\n" in comment or f"{own}\n" in comment


# ---- what the paper says


@pytest.mark.parametrize("name", BATCH_SIZE)
def test_a_data_set_has_the_papers_constants(name):
    recipe = load_recipe(name)
    assert recipe.data == name.partition("-")[0]
    assert recipe.train.batch_size == BATCH_SIZE[name]
    assert (recipe.optim.lr, recipe.optim.weight_decay) == (1e-3, 5e-4)
    official_code = (recipe.optim.momentum, recipe.optim.gamma, recipe.train.epochs)
    assert official_code == (0.9, 0.1, 300)
    assert (recipe.clip.frames, recipe.clip.size) == (16, 112)
    drops = [at * recipe.train.epochs if at < 1 else at for at in recipe.optim.milestones]
    assert drops == [150, 225]
    assert (list(recipe.method), recipe.ce_weight) == (["ccl"], 1.0)


def test_the_options_of_ccl_are_the_papers():
    options = CCLOptions.model_validate(load_recipe("ucf51").method["ccl"])
    assert (options.nce_lambda, options.cls_weight) == (0.5, 1.0)
    assert (options.temperature["audio"], options.temperature["image"]) == (0.5, 0.1)


@pytest.mark.parametrize("data", ["ucf51", "activitynet", "vggsound"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_differs_from_ccl_in_the_objective_only(data, method):
    recipe, ccl = load_recipe(data, {"method": method}), load_recipe(data)
    assert recipe.method == {method: {}}  # its published options
    assert recipe.teachers == (() if method == "baseline" else (AUDIO, IMAGE))
    assert recipe.ce_weight == (0.1 if method == "kd" else 1.0)
    objective = {"method", "ce_weight", "teachers"}
    assert recipe.model_dump(exclude=objective) == ccl.model_dump(exclude=objective)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ({}, {"method": {"ccl": {"preset": "official"}}}),
        ({"method": "baseline"}, {"method": {"baseline": {}}, "teachers": ()}),
    ],
)
def test_the_official_recipe_departs_from_the_paper_where_the_official_code_does(flags, changes):
    recipe, paper = load_recipe("ucf51-official", flags), load_recipe("ucf51")
    official = {
        "name": recipe.name,
        "description": recipe.description,
        "student": "r2plus1d_10",
        "teachers": (AUDIO, f"{IMAGE}?input=student_clip&frame=shared"),
        "optim": paper.optim.model_copy(update={"milestones": (150, 225), "head_lr_decay": False}),
        "train": paper.train.model_copy(update={"precision": "fp32"}),
    }
    assert recipe == paper.model_copy(update=official | changes)


@pytest.mark.parametrize("data", ["ucf51", "activitynet", "vggsound"])
def test_a_cell_of_the_benchmark_is_the_experiment_that_train_makes(data):
    """Same hash, so that a run by hand and a cell have one entry in a table."""
    teachers = {"A": [AUDIO], "I": [IMAGE], "AI": [AUDIO, IMAGE], "": None}
    for cell in final_cells(load_recipe(f"{data}-bench"), {}):
        if cell.table == "main":
            flags = {"method": cell.method, "teachers": teachers[cell.setup], "train.seed": cell.seed}
            assert cell.recipe.hash() == load_recipe(data, flags).hash()


def test_the_ablations_are_those_of_the_papers_table_3():
    cells = [cell for cell in final_cells(load_recipe("ucf51-bench"), {}) if cell.table == "ablation"]
    assert {cell.method: cell.recipe.method for cell in cells} == {
        "ccl w/o composition": {"ccl": {"composition": False}},
        "ccl w L_ct": {"ccl": {"contrast": "infonce"}},
        "ccl w/o L_nce": {"ccl": {"nce": False}},
        "ccl w/o L_jsd": {"ccl": {"jsd": False}},
    }


def test_all_methods_have_one_budget_in_the_comparison_of_methods():
    recipe = load_recipe("methods-bench")
    search, final = tune_cells(recipe, hold_out=False), final_cells(recipe, {})
    assert (len(search), len(final)) == (168, 275)
    assert {cell.recipe.data for cell in search} == {"synthetic?seed=10"}
    assert {cell.recipe.data for cell in final} == {"synthetic?seed=6"}
    methods = {name for cell in final for name in cell.recipe.method}
    assert methods == {*METHODS} - {"kd"}
    standardized = {cell.method: cell.recipe.standardize for cell in final if cell.recipe.standardize}
    assert standardized == {"ccl zscore": {"*": "zscore"}, "ccl phi_s": {"*": "phi_s"}}


# ---- two steps


def small(name: str, folder) -> Recipe:
    """The recipe on small clips, with embeddings from files instead of the teachers' networks."""
    modalities = [parse_model(text).kind for text in load_recipe(name).teachers]
    flags = {
        "data": f"folder:{folder / 'set'}",
        "student": "r2plus1d_tiny",
        "teachers": [f"{kind}:precomputed@{folder / f'{kind}.npz'}" for kind in modalities],
    }
    sizes = ["clip.frames=4", "clip.size=32", "clip.short_side=48", "train.batch_size=4"]
    return load_recipe(name, flags, [*sizes, "train.max_steps=2", "train.log_every=1", "train.workers=0"])


QUICK = ["ucf51", "ucf51-official", "smoke", "demo"]
# A cell of a benchmark is the experiment of its data set's recipe.
SLOW = [name for name in builtin_recipes() if name not in QUICK and not name.endswith("-bench")]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)])
def test_two_steps(name, clips_folder):
    recipe = small(name, clips_folder)
    steps = [line for line in lines(train(recipe)) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert all(math.isfinite(value) for line in steps for value in line.values() if isinstance(value, float))
    # A teacher is named in the terms it gives, and every one gives at least one.
    teachers = {key.partition("/")[2] for key in steps[0] if "/" in key}
    assert teachers == {parse_model(text).label for text in recipe.teachers}


@pytest.mark.parametrize(
    "text", sorted({text for name in builtin_recipes() for text in load_recipe(name).teachers})
)
def test_the_options_of_every_teacher_named_are_known_to_it(text):
    random = text if "weights=random" in text else f"{text}{'&' if '?' in text else '?'}weights=random"
    teacher = load_teacher(parse_model(random))
    assert teacher.modality == parse_model(text).kind
    assert teacher.random_weights
