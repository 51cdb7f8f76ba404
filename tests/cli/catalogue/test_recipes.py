from __future__ import annotations

import json

import pytest

from ccl_cli.config.load import builtin_recipes, load_recipe


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
        (
            "*-bench",
            [f"{data}-bench" for data in ("activitynet", "methods", "synthetic", "ucf51", "vggsound")],
        ),
    ],
)
def test_recipes_ls_of_a_pattern(ccl, pattern, names):
    listed = [line.split()[0] for line in ccl("recipes", "ls", pattern).out.splitlines()[1:]]
    assert listed == names


def test_recipes_ls_of_nothing(ccl):
    result = ccl("recipes", "ls", "hmdb")
    assert result.code == 2
    assert "No built-in recipe matches 'hmdb'." in result.err


def test_recipes_ls_fits_a_narrow_terminal():
    """The table needs five columns beside the cells; descriptions that wrap would double the list."""
    descriptions = {name: load_recipe(name).description for name in builtin_recipes()}
    longest = max(map(len, descriptions))
    assert [name for name, text in descriptions.items() if longest + len(text) + 5 > 80] == []


def test_recipes_show_is_a_recipe_again(ccl, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(ccl("recipes", "show", "smoke", "--set", "train.epochs=7").out)
    recipe = load_recipe("smoke", {"train.epochs": 7})
    assert load_recipe(str(path)) == recipe
    values = json.loads(ccl("recipes", "show", str(path), "--json").out)
    assert values == recipe.model_dump(mode="json")


def test_recipes_check(ccl, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("data: clips\n")
    bad.write_text("data: clip\nmethod: {ccl: {jds: 1}}\n")
    assert ccl("recipes", "check", str(good)).out == f"{good}: ok\n"
    result = ccl("recipes", "check", str(good), str(bad), "smok")
    assert (result.code, result.out) == (5, f"{good}: ok\n")
    assert json.loads(ccl("recipes", "check", str(good), str(bad), "--json").out) == {
        str(good): True,
        str(bad): False,
    }
    errors = [line for line in result.err.splitlines() if line.startswith("Error")]
    assert len(errors) == 3
    assert f"{bad}: No dataset 'clip'." in errors[0]
    assert f"{bad}: method.ccl.jds: there is no such key." in errors[1]
    assert "No recipe 'smok'." in errors[2]


def test_recipes_check_without_a_name_checks_all_built_in_ones(ccl):
    assert ccl("recipes", "check").out == "".join(f"{name}: ok\n" for name in builtin_recipes())
