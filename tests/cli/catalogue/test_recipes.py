from __future__ import annotations

import json

import pytest

from ccl_cli.config.load import builtin_recipes, load_recipe


def test_recipes_ls(ccl):
    """The descriptions fit a narrow terminal: the table needs five columns beside the cells."""
    listed = [line.split(maxsplit=1) for line in ccl("recipes", "ls").out.splitlines()[1:]]
    assert [name for name, _ in listed] == list(builtin_recipes())
    assert all(description == load_recipe(name).description for name, description in listed)
    longest = max(len(name) for name, _ in listed)
    assert [name for name, text in listed if longest + len(text) + 5 > 80] == []


BENCHES = [f"{data}-bench" for data in ("activitynet", "methods", "synthetic", "ucf51", "vggsound")]


@pytest.mark.parametrize(
    ("pattern", "names"), [("ucf51", ["ucf51", "ucf51-bench", "ucf51-official"]), ("*-bench", BENCHES)]
)
def test_recipes_ls_of_a_pattern(ccl, pattern, names):
    assert [line.split()[0] for line in ccl("recipes", "ls", pattern).out.splitlines()[1:]] == names
    assert ccl("recipes", "ls", "hmdb").code == 2


def test_recipes_show_is_a_recipe_again(ccl, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(ccl("recipes", "show", "smoke", "--set", "train.epochs=7").out)
    recipe = load_recipe("smoke", {"train.epochs": 7})
    assert load_recipe(str(path)) == recipe
    assert json.loads(ccl("recipes", "show", str(path), "--json").out) == recipe.model_dump(mode="json")


def test_recipes_check(ccl, tmp_path):
    good, bad = str(tmp_path / "good.yaml"), str(tmp_path / "bad.yaml")
    (tmp_path / "good.yaml").write_text("data: clips\n")
    (tmp_path / "bad.yaml").write_text("data: clip\nmethod: {ccl: {jds: 1}}\n")
    result = ccl("recipes", "check", good, bad, "smok")
    assert (result.code, result.out) == (5, f"{good}: ok\n")
    assert json.loads(ccl("recipes", "check", good, bad, "--json").out) == {good: True, bad: False}
    errors = [line for line in result.err.splitlines() if line.startswith("Error")]
    said = f"{bad}: No dataset 'clip'.", f"{bad}: method.ccl.jds: there is no such key.", "No recipe 'smok'."
    assert all(sentence in line for sentence, line in zip(said, errors, strict=True))
    assert ccl("recipes", "check").out == "".join(f"{name}: ok\n" for name in builtin_recipes())
