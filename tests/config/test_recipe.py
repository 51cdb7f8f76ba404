from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccl_cli.config import yaml_text
from ccl_cli.config.load import check_recipe, load_recipe, to_yaml
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import CclError, MultipleErrors, PluginError, UsageError


def problems(*args, **kwargs) -> list[str]:
    with pytest.raises(CclError) as caught:
        load_recipe(*args, **kwargs)
    errors = caught.value.errors if isinstance(caught.value, MultipleErrors) else [caught.value]
    assert all(error.exit_code == 3 for error in errors)
    return [str(error) for error in errors]


@pytest.fixture
def recipe_file(tmp_path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


# ---- precedence


def test_recipe_beats_default_flag_beats_recipe_and_set_beats_flag(recipe_file):
    path = recipe_file("train: {epochs: 7, seed: 7, workers: 7, batch_size: 7}\n")
    flags = {
        "train.epochs": 8,
        "train.seed": 8,
        "train.workers": 0,
        "train.batch_size": None,
    }  # None: not typed
    recipe = load_recipe(path, flags, ["train.epochs=9"])
    train = recipe.train
    assert (train.epochs, train.seed, train.workers, train.batch_size) == (9, 8, 0, 7)
    assert train.log_every == Recipe().train.log_every


def test_a_recipe_is_named_by_the_environment_or_a_run_folder(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("name: of-a-run\n")
    assert load_recipe(str(tmp_path)).name == "of-a-run"
    monkeypatch.setenv("CCL_RECIPE", str(tmp_path))
    assert load_recipe().name == "of-a-run"
    assert load_recipe("smoke").name == "smoke"


@pytest.mark.parametrize(
    "text", ["", "method: ccl\n", "method: {ccl: }\n", "method: {ccl: {preset: official}}\n"]
)
def test_set_reaches_into_a_method_however_it_was_written(recipe_file, text):
    recipe = load_recipe(recipe_file(text), overrides=["method.ccl.jsd=false"])
    assert recipe.method["ccl"]["jsd"] is False
    assert list(recipe.method) == ["ccl"]


WITH_METHODS = """method: {ccl: {jsd: false}}
optim: {lr: 0.5}
methods:
  kd: {ce_weight: 0.1, optim: {momentum: 0.5}}
  mine: {method: {ccl: {nce: false}}}
"""


def test_a_method_that_is_named_brings_the_keys_that_go_with_it(recipe_file):
    path = recipe_file(WITH_METHODS)
    recipe = load_recipe(path, {"optim.momentum": 0.7, "method": "kd"}, ["ce_weight=0.2"])
    assert recipe.method == {"kd": {}}
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.ce_weight) == (0.5, 0.7, 0.2)
    assert load_recipe(path, {"method": "kd"}).ce_weight == 0.1
    assert load_recipe(path, {"method": "mine"}).method == {"ccl": {"nce": False}}
    other = load_recipe(path, {"method": "pkt"})
    assert (other.method, other.ce_weight) == ({"pkt": {}}, 1.0)
    assert load_recipe(flags={"method": "ccl+baseline"}).method == {"ccl": {}, "baseline": {}}
    assert load_recipe(path).method == {"ccl": {"jsd": False}}


def test_a_bad_value_that_goes_with_a_method_has_its_line(recipe_file):
    path = recipe_file("methods:\n  kd:\n    ce_weight: -1\n")
    sentence = "ce_weight: must be greater than or equal to 0, got -1 (mine.yaml:3)."
    assert problems(path, {"method": "kd"}) == [sentence]
    assert problems(recipe_file("methods: 3\n"), {"method": "kd"})[0].startswith("methods: must be a section")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("optim.lr=1e-3", 1e-3),
        ("optim.lr=2.5E1", 25.0),
        ("optim.lr=.5", 0.5),
        ("optim.clip_norm=null", None),
        ("optim.milestones=[1, 2.5]", (1.0, 2.5)),
        ("optim.nesterov=true", True),
    ],
)
def test_overrides_are_yaml(text, read):
    recipe = load_recipe(overrides=[text])
    assert getattr(recipe.optim, text.partition("=")[0].split(".")[1]) == read


def test_an_override_may_hold_equals_signs_and_colons():
    recipe = load_recipe(overrides=["data=folder:/a b?val=0.1&x=y", "teachers=['audio:cnn14?dim=2048']"])
    assert recipe.data == "folder:/a b?val=0.1&x=y"
    assert recipe.teachers == ("audio:cnn14?dim=2048",)


def test_an_override_below_a_value_is_refused():
    (problem,) = problems(overrides=["name=x", "name.y=1"])
    assert problem == "name: is a value, not a section (--set name.y=1)."


@pytest.mark.parametrize("text", ["epochs", "=3", "train.=3", ".epochs=3", ""])
def test_an_override_without_key_or_value_is_a_usage_error(text):
    with pytest.raises(UsageError, match="key=value"):
        load_recipe(overrides=[text])


# ---- what is wrong, in sentences


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  batch_size: 0\n", "train.batch_size: must be greater than 0, got 0 (mine.yaml:2)."),
        ("train:\n  epochs: many\n", "train.epochs: must be a valid integer, got 'many' (mine.yaml:2)."),
        ("clip:\n  mean: [1, 2]\n", "clip.mean.2: a value is missing (mine.yaml:2)."),
        ("train: 3\n", "train: must be a section of keys and values, got 3 (mine.yaml:1)."),
        ("teachers: [a:b, a:b]\n", "teachers: the same teacher is listed twice (mine.yaml:1)."),
        ("method: {}\n", "method: must have at least 1 item, got {} (mine.yaml:1)."),
        ("name: a/b\n", "name: must match pattern '^[\\w.-]+$', got 'a/b' (mine.yaml:1)."),
        (
            "optim:\n  schedule: cosin\n",
            "optim.schedule: must be 'step', 'cosine', 'linear' or 'constant', got 'cosin' (mine.yaml:2).",
        ),
        (
            "optim: {milestones: [0.5, -1]}\n",
            "optim.milestones.1: must be greater than or equal to 0, got -1 (mine.yaml:1).",
        ),
        (
            "optim: {schedule: linear, lr: 0.01, min_lr: 0.1}\n",
            "optim: min_lr (0.1) must not exceed lr (0.01) (mine.yaml:1).",
        ),
        (
            "optim: {min_lr: 1.0e-5}\n",
            "optim: min_lr requires the cosine or linear schedule, and the schedule is step (mine.yaml:1).",
        ),
        (
            "optim: {warmup_epochs: 300}\n",
            "The recipe: optim.warmup_epochs (300) must be below train.epochs (300).",
        ),
        (
            "clip: {stride: 2, fps: 10}\n",
            "clip: stride and fps both set the frame spacing: omit one of them (mine.yaml:1).",
        ),
        (
            "clip: {sampling: segments, fps: 10}\n",
            "clip: segments cover the whole video, so stride and fps have no effect: omit them "
            "(mine.yaml:1).",
        ),
        ("eval: {crops: 2}\n", "eval.crops: must be 1 or 3, got 2 (mine.yaml:1)."),
    ],
)
def test_each_bad_value_is_one_sentence_with_its_line(recipe_file, text, sentence):
    assert problems(recipe_file(text)) == [sentence]


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("train:\n  batchsize: 1\n", "train.batch_size"),
        ("batch_size: 1\n", "train.batch_size"),
        ("train:\n  lr: 1\n", "optim.lr"),
        ("teacher: a:b\n", "teachers"),
        ("eval:\n  strides: 1\n", "eval.stride"),
        ("eval: {zzz: 1}\n", ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(recipe_file, text, suggested):
    (problem,) = problems(recipe_file(text))
    assert "there is no such key (mine.yaml:" in problem
    expected = (
        f"Did you mean '{suggested}'?" if suggested else "Valid keys: batch_size, stride, clips, crops."
    )
    assert problem.endswith(expected)


def test_all_problems_are_reported_at_once_each_with_its_source(recipe_file):
    messages = problems(
        recipe_file("train: {seed: -1}\n"), {"train.epochs": 0}, ["optim.lr=0", "extends=smoke"]
    )
    assert [line.partition(":")[0] for line in messages] == [
        "optim.lr",
        "train.epochs",
        "train.seed",
        "extends",
    ]
    assert "(--set optim.lr=0)" in messages[0]
    assert "(the command line)" in messages[1]
    assert "(mine.yaml:1)" in messages[2]
    assert "(--set extends=smoke)" in messages[3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2\n", "mine.yaml:2"),
        ("train:\n  epochs: 1\n  epochs: 2\n", "mine.yaml:3: 'epochs' is given twice"),
        ("a: !!python/object/apply:os.system [ls]\n", "mine.yaml:1: tags are not allowed in a recipe"),
        ("a: &x [*x]\n", "mine.yaml:1: aliases are not allowed in a recipe"),
        ("a: &x {b: 1}\nc: *x\n", "mine.yaml:2: aliases"),
        ("- a\n- b\n", "'key: value' lines"),
        ("just text\n", "'key: value' lines"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("a: \x07\n", "unacceptable character"),
        ("[" * 5000, "mine.yaml:1: more than 50 levels of nesting"),
        ("name: 2001-99-99\n", "mine.yaml"),
        ("? [a, b]\n: 1\n", "mine.yaml"),
    ],
)
def test_what_is_no_recipe_at_all(recipe_file, text, said):
    (problem,) = problems(recipe_file(text))
    assert said in problem
    assert "\n" not in problem


def test_a_question_mark_in_brackets_must_be_quoted_and_the_hint_says_so(recipe_file):
    (problem,) = problems(recipe_file("teachers: [audio:cnn14?dim=2048]\n"))
    assert "mine.yaml:1" in problem
    assert "Quote" in problem
    assert load_recipe(recipe_file("teachers:\n  - audio:cnn14?dim=2048\n")).teachers == (
        "audio:cnn14?dim=2048",
    )


def test_an_empty_file_and_no_file_are_the_defaults(recipe_file):
    assert load_recipe(recipe_file("# nothing\n")) == load_recipe() == Recipe()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ucf51-ofical", "Did you mean '"),
        ("absent.yaml", "'absent.yaml'"),
        ("folder/absent", "'folder/absent'"),
        ("./smoke", "'smoke'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_an_absent_file_is_named(name, said):
    (problem,) = problems(name)
    assert said in problem


# ---- extends


@pytest.fixture
def family(tmp_path):
    """Write recipes by name, each in the folder of its name."""

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{name}.yaml").write_text(text)
        return tmp_path / name / f"{name}.yaml"

    return write


PARENT = """name: parent
teachers: [audio:cnn14, image:resnet34]
method: {ccl: {jsd: false}}
optim: {lr: 0.5, milestones: [0.5, 0.75]}
train:
  epochs: 7
  seed: 3
"""


def test_sections_are_merged_by_key_and_all_else_is_replaced(family):
    child = family(
        parent=PARENT,
        child="extends: ../parent/parent.yaml\nteachers: [a:b]\noptim: {milestones: [1]}\ntrain:\n  "
        "epochs: 9\n",
    )
    recipe = load_recipe(str(child))
    assert recipe == Recipe.model_validate(
        {
            "name": "parent",
            "teachers": ["a:b"],
            "method": {"ccl": {"jsd": False}},
            "optim": {"lr": 0.5, "milestones": [1]},
            "train": {"epochs": 9, "seed": 3},
        }
    )


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("method: fitnet", {"fitnet": {}}),
        ("method: {ccl: {nce: false}}", {"ccl": {"nce": False}}),
        ("method: ccl+pkt", {"ccl": {}, "pkt": {}}),
    ],
)
def test_the_methods_of_a_child_replace_the_parents(family, text, method):
    assert (
        load_recipe(str(family(parent=PARENT, child=f"extends: ../parent/parent.yaml\n{text}\n"))).method
        == method
    )


def test_a_benchmarks_row_replaces_the_parents_row_of_that_name(family):
    bench = """
bench:
  setups: {A: audio:cnn14}
  methods: {kd: {method: kd, ce_weight: 0.1}, ccl: ccl, pkt: {method: {pkt: {weight: 2}}}}
  ablations: {no jsd: {method: {ccl: {jsd: false}}}}
"""
    mine = """
bench:
  methods: {kd: {method: {kd: {temperature: 2}}}, ccl: {method: {ccl: {nce: false}}}}
  ablations: {no jsd: {optim: {lr: 0.5}}}
"""
    child = family(parent=PARENT + bench, child="extends: ../parent/parent.yaml\n" + mine)
    found = load_recipe(str(child)).bench
    assert found.setups == {"A": ("audio:cnn14",)}
    assert found.methods == {
        "kd": {"method": {"kd": {"temperature": 2}}},
        "ccl": {"method": {"ccl": {"nce": False}}},
        "pkt": {"method": {"pkt": {"weight": 2}}},
    }
    assert found.ablations == {"no jsd": {"optim": {"lr": 0.5}}}


def test_each_value_is_blamed_on_the_file_it_was_written_in(family):
    child = family(
        parent="name: parent\noptim:\n  lr: fast\ntrain:\n  epochs: 0\n  seed: -1\n",
        child="extends: ../parent/parent.yaml\ntrain:\n  seed: -2\n  batchsize: 1\n",
    )
    messages = problems(str(child))
    places = {line.partition(":")[0]: line.partition("(")[2].partition(")")[0] for line in messages}
    assert places == {
        "optim.lr": "parent.yaml:3",
        "train.epochs": "parent.yaml:5",
        "train.seed": "child.yaml:3",
        "train.batchsize": "child.yaml:4",
    }


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("ucf51-bnech", "No recipe 'ucf51-bnech' (child.yaml:2). Did you mean 'ucf51-bench'"),
        ("../absent.yaml", "/../absent.yaml' (child.yaml:2)."),
        ("[smoke, ucf51]", "extends: must be the name or the file of a recipe, got ['smoke', 'ucf51'] ("),
        ("null", "extends: must be the name or the file of a recipe, got None (child.yaml:2)."),
        ("child.yaml", "extends: child.yaml extends child.yaml (child.yaml:2)."),
    ],
)
def test_a_parent_that_is_none(family, extends, said):
    (problem,) = problems(str(family(child=f"name: x\nextends: {extends}\n")))
    assert said in problem


def test_no_recipe_extends_itself_over_others(family, tmp_path):
    family(a="extends: ../b/b.yaml\n", b="extends: ../c/c.yaml\n", c="\nextends: ../a/../b/b.yaml\n")
    (problem,) = problems(str(tmp_path / "a" / "a.yaml"))
    assert problem.startswith("extends: b.yaml extends c.yaml extends b.yaml (c.yaml:2).")


# ---- to_yaml and hash


@settings(max_examples=25)
@given(
    name=st.text("aeny019._-", min_size=1).filter(lambda name: name.strip(".")),
    description=st.text([*map(chr, range(32, 127)), *"\xa0é\u0301\u200b\u2028\u202e\ufeff\uffff𝄞😀"]),
    data=st.none() | st.sampled_from(["1e3", "no", "~", "folder:a b", "null", "2001-01-01", "0x1f", "1_000"]),
    lr=st.floats(1e-12, 1e12),
    milestones=st.lists(st.floats(0, 1000)),
    options=st.dictionaries(
        st.sampled_from("abc"), st.booleans() | st.floats(-9, 9) | st.sampled_from(["1e3", "y"])
    ),
)
def test_to_yaml_reads_back_equal(name, description, data, lr, milestones, options):
    recipe = Recipe.model_validate(
        {
            "name": name,
            "description": description,
            "data": data,
            "optim": {"lr": lr, "milestones": milestones},
            "method": {"ccl": options},
        }
    )
    again = Recipe.model_validate(yaml_text.parse(to_yaml(recipe), "recipe"))
    assert again == recipe
    assert again.hash() == recipe.hash()


def test_the_hash_follows_what_decides_the_experiment_only():
    recipe = Recipe()
    for key, value in (("name", "other"), ("description", "other"), ("methods", {"kd": {"ce_weight": 0.1}})):
        assert recipe.hash() == recipe.model_copy(update={key: value}).hash()
    assert recipe.hash() != load_recipe(overrides=["train.seed=1"]).hash()
    assert load_recipe(overrides=["optim.lr=1e-3"]).hash() == load_recipe(overrides=["optim.lr=0.001"]).hash()


# ---- plugins and options


def test_check_names_everything_that_is_not_installed():
    recipe = load_recipe(
        flags={"teachers": ["audio:cnn15"], "student": "r2", "data": "ucf52:x"},
        overrides=["method={cll: {}, ccl: {jds: false, nce_lambda: 2}}"],
    )
    with pytest.raises(MultipleErrors) as caught:
        check_recipe(recipe)
    messages = [str(error) for error in caught.value.errors]
    assert caught.value.errors[0].exit_code == PluginError.exit_code
    for line, part in zip(messages, ["'audio:cnn15'", "'r2'", "'ucf52'", "'cll'"], strict=False):
        assert part in line
    assert messages[-2:] == [
        "method.ccl.nce_lambda: must be less than or equal to 1, got 2.",
        "method.ccl.jds: there is no such key. Did you mean 'method.ccl.jsd'?",
    ]


@pytest.mark.parametrize("text", ["cache.use=off", "cache.use='off'", "cache={use: off}"])
def test_a_bare_off_is_off(text):
    """YAML reads it as false."""
    assert load_recipe(overrides=[text]).cache.use == "off"
