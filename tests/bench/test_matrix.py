from __future__ import annotations

import pytest
from pydantic import ValidationError

from ccl_cli.bench import matrix
from ccl_cli.bench.seeds import parse_seeds
from ccl_cli.config.recipe import Recipe, Tune
from ccl_cli.errors import PluginError, RecipeError, UsageError

BENCH = {
    "setups": {"A": "audio:precomputed@a", "AI": ["audio:precomputed@a", "image:precomputed@i"]},
    "methods": {"baseline": "baseline", "ccl": "ccl", "hot": {"method": {"ccl": {"teacher_weight": 3.0}}}},
    "ablations": {"ccl w/o jsd": {"method": {"ccl": {"jsd": False}}, "optim": {"lr": 0.5}}},
    "seeds": [0, 7],
}


def recipe(**changes):
    return Recipe.model_validate(
        {"name": "b", "data": "clips", "optim": {"momentum": 0.1}, "bench": BENCH | changes}
    )


def test_every_row_by_every_setup_by_every_seed():
    cells = matrix.final_cells(recipe(), {})
    first = ["baseline seed 0", "baseline seed 7", "ccl A seed 0", "ccl A seed 7"]
    assert [cell.label for cell in cells[:4]] == first
    assert len(cells) == 2 + 3 * 2 * 2
    assert len({cell.folder for cell in cells}) == len(cells)
    assert all(cell.phase == "final" and cell.recipe.holdout == 0 for cell in cells)
    last = cells[-1]
    assert (last.table, last.setup, last.recipe.train.seed) == ("ablation", "AI", 7)
    assert last.recipe.method == {"ccl": {"jsd": False}}
    assert last.recipe.teachers == ("audio:precomputed@a", "image:precomputed@i")
    assert (last.recipe.optim.lr, last.recipe.optim.momentum) == (0.5, 0.1)
    assert last.recipe.bench is None
    assert cells[0].recipe.teachers == ()


def test_a_row_that_is_a_method_s_name_brings_the_keys_that_go_with_it():
    named = recipe(methods={"soft": "kd"}, ablations={}, seeds=[0]).model_copy(
        update={"methods": {"kd": {"ce_weight": 0.1, "optim": {"lr": 0.5}}}}
    )
    for cell in matrix.final_cells(named, {}):
        assert (cell.recipe.method, cell.recipe.ce_weight) == ({"kd": {}}, 0.1)
        assert (cell.recipe.optim.lr, cell.recipe.optim.momentum) == (0.5, 0.1)
        assert cell.recipe.methods == {}


def test_a_change_of_the_recipe_changes_the_folder_and_a_name_of_a_worker_does_not():
    folders = {cell.folder for cell in matrix.final_cells(recipe(), {})}
    values = recipe().model_dump()
    other = Recipe.model_validate(values | {"ce_weight": 0.5})
    assert not folders & {cell.folder for cell in matrix.final_cells(other, {})}
    same = Recipe.model_validate(values | {"train": values["train"] | {"workers": 7}})
    assert folders == {cell.folder for cell in matrix.final_cells(same, {})}


def test_a_factor_scales_the_method_s_weight_and_its_ablations():
    cells = matrix.final_cells(recipe(), {("ccl", "A"): 10.0, ("hot", "AI"): 0.1})
    weights = {(c.method, c.setup): c.recipe.method["ccl"].get("teacher_weight") for c in cells[2:]}
    own = {
        ("ccl", "A"): 10.0,
        ("hot", "A"): 3.0,
        ("hot", "AI"): pytest.approx(0.3),
        ("ccl w/o jsd", "A"): 10.0,
    }
    assert weights == own | {("ccl", "AI"): None, ("ccl w/o jsd", "AI"): None}


def test_weights_in_the_recipe_hold_where_none_has_been_chosen():
    known = recipe(weights={"ccl": {"A": 0.5, "AI": 2.0}})
    weights = {(c.method, c.setup): c.factor for c in matrix.final_cells(known, {("ccl", "AI"): 4.0})}
    assert weights["ccl", "A"] == weights["ccl w/o jsd", "A"] == 0.5
    assert weights["ccl", "AI"] == weights["ccl w/o jsd", "AI"] == 4.0
    assert weights["hot", "A"] == 1.0


def test_tuning_holds_videos_out_and_leaves_the_test_list_alone():
    tuned = recipe(tune={"grid": [0.1, 1], "seeds": [5], "epochs": 2, "holdout": 0.3})
    cells = matrix.tune_cells(tuned, hold_out=True)
    assert len(cells) == 2 * 2 * 2  # two methods with teachers, two setups, two factors; no ablation
    assert {cell.recipe.holdout for cell in cells} == {0.3}
    assert {cell.recipe.train.epochs for cell in cells} == {2}
    assert {cell.recipe.train.seed for cell in cells} == {5}
    assert {cell.phase for cell in cells} == {"tune"}
    assert {cell.recipe.holdout for cell in matrix.tune_cells(tuned, hold_out=False)} == {0.0}
    assert matrix.tune_cells(recipe(), hold_out=True) == []


def test_what_tuning_says_lies_over_what_a_row_says():
    row = {"method": "ccl", "holdout": 0.5, "train": {"epochs": 9, "batch_size": 4}}
    tune = {"epochs": 2, "holdout": 0.3, "data": "folder:other"}
    tuned = recipe(methods={"long": row}, ablations={}, tune=tune)
    for hold_out, share in ((True, 0.3), (False, 0.0)):
        for cell in matrix.tune_cells(tuned, hold_out=hold_out):
            assert (cell.recipe.train.epochs, cell.recipe.train.batch_size) == (2, 4)
            assert (cell.recipe.holdout, cell.recipe.data) == (share, "folder:other")
    for cell in matrix.final_cells(tuned, {}):
        assert (cell.recipe.train.epochs, cell.recipe.data) == (9, tuned.data)


def test_an_ablation_alone_is_tuned_by_its_main_row():
    chosen = matrix.only(recipe(tune={"grid": [0.1], "seeds": [5]}), ["ccl w/o jsd"], ["A"])
    assert [cell.label for cell in matrix.tune_cells(chosen, hold_out=True)] == ["ccl A x0.1 seed 5"]
    cells = matrix.final_cells(chosen, {("ccl", "A"): 10.0})
    assert [cell.label for cell in cells] == ["ccl w/o jsd A seed 0", "ccl w/o jsd A seed 7"]
    assert {cell.recipe.method["ccl"]["teacher_weight"] for cell in cells} == {10.0}


def test_rows_and_columns_can_be_chosen():
    """Rows that are not run may need what is not installed."""
    chosen = matrix.only(recipe(methods={"x": "not_installed", "ccl": "ccl"}), ["ccl", "ccl w/o jsd"], ["A"])
    matrix.check(chosen)
    labels = [cell.label for cell in matrix.final_cells(chosen, {})]
    assert labels[::2] == ["ccl A seed 0", "ccl w/o jsd A seed 0"]
    with pytest.raises(UsageError, match="no row 'pkd'"):
        matrix.only(recipe(), ["pkd"], [])
    with pytest.raises(UsageError, match="no setup 'X'"):
        matrix.only(recipe(), [], ["X"])


def test_a_recipe_keeps_its_own_way_of_tuning():
    own = recipe(tune={"grid": [0.1], "epochs": 2})
    assert matrix.with_tuning(own) == own
    assert matrix.with_tuning(recipe()).bench.tune == Tune()


@pytest.mark.parametrize("named", ["AI", ["AI"]])
def test_a_row_may_name_its_columns(named):
    changed = recipe(methods={"ccl": {"method": "ccl", "setups": named}, "pkt": "pkt"}, tune={"grid": [1]})
    cells = [*matrix.final_cells(changed, {}), *matrix.tune_cells(changed, hold_out=True)]
    assert {cell.setup for cell in cells if cell.method == "ccl"} == {"AI"}
    assert {cell.setup for cell in cells if cell.method == "pkt"} == {"A", "AI"}
    assert not matrix.final_cells(matrix.only(changed, ["ccl"], ["A"]), {})


@pytest.mark.parametrize(
    ("methods", "kind", "said"),
    [
        ({"x": "cll"}, PluginError, "cll"),
        ({"x": {"method": "ccl", "optim": {"lr": -1}}}, RecipeError, "bench.methods.x.optim.lr"),
        ({"x": {"meth": "ccl"}}, RecipeError, "bench.methods.x.meth"),
        ({"x": {"method": {"ccl": {"jsd": 7}}}}, RecipeError, "jsd"),
        ({"x": {"method": "fitnet", "labels_per_class": 0}}, RecipeError, "row 'x' trains without labels"),
        ({"x": {"method": 5}}, RecipeError, "bench.methods.x.method: must be a section .*, got 5"),
    ],
)
def test_a_row_that_cannot_be_trained_is_found_before_anything_runs(methods, kind, said):
    with pytest.raises(kind, match=said):
        matrix.check(recipe(methods=methods))


def test_a_recipe_without_a_benchmark_says_so():
    with pytest.raises(RecipeError, match="has no benchmark"):
        matrix.final_cells(Recipe(), {})
    with pytest.raises(ValidationError, match="'ccl' is a method and an ablation"):
        Recipe.model_validate({"bench": BENCH | {"ablations": {"ccl": "ccl"}}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0, 1, 0]}, "0 is named twice"),
        ({"tune": {"seeds": [3, 3]}}, "3 is named twice"),
        ({"tune": {"grid": [0.1, 1, 1.0]}}, r"1\.0 is named twice"),
        ({"rows": ["ccl", "pkd"]}, "there is no row 'pkd'"),
        ({"weights": {"ccl w/o jsd": {"A": 2}}}, "weights: there is no method 'ccl w/o jsd'"),
        ({"weights": {"ccl": {"V": 2}}}, "weights: there is no setup 'V'"),
        ({"weights": {"ccl": {"A": 0}}}, "greater than 0"),
        ({"methods": {"ccl": {"method": "ccl", "setups": ["I"]}}}, "there is no setup 'I'"),
        ({"methods": {"ccl": {"method": "ccl", "setups": 5}}}, "there is no setup '5'"),
    ],
)
def test_what_a_benchmark_must_not_say(changes, said):
    with pytest.raises(ValidationError, match=said):
        recipe(**changes)


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("0,5", [0, 5]), ("4,", [4]), ("1", [0])])
def test_seeds_are_a_number_or_a_list(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "x", "", "-1,2", "1;2", ",", "1,2,1", "10000000"])
def test_seeds_that_are_neither(text):
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds(text)
