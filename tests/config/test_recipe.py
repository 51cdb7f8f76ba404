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
def write(tmp_path):
    """Write a recipe by its name."""

    def write(text: str | bytes, name: str = "mine.yaml") -> str:
        path: Path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


# ---- precedence


def test_recipe_beats_default_flag_beats_recipe_and_set_beats_flag(write):
    path = write("train: {epochs: 7, seed: 7, workers: 7, batch_size: 7}\n")
    not_typed = {"train.batch_size": None}
    flags = {"train.epochs": 8, "train.seed": 8, "train.workers": 0, **not_typed}
    train = load_recipe(path, flags, ["train.epochs=9"]).train
    assert (train.epochs, train.seed, train.workers, train.batch_size) == (9, 8, 0, 7)
    assert train.log_every == Recipe().train.log_every


def test_a_recipe_is_named_by_the_environment_or_a_run_folder(write, tmp_path, monkeypatch):
    write("name: of-a-run\n", "recipe.yaml")
    assert load_recipe(str(tmp_path)).name == "of-a-run"
    monkeypatch.setenv("CCL_RECIPE", str(tmp_path))
    assert load_recipe().name == "of-a-run"
    assert load_recipe("smoke").name == "smoke"


@pytest.mark.parametrize(
    "text", ["", "method: ccl\n", "method: {ccl: }\n", "method: {ccl: {preset: official}}\n"]
)
def test_set_reaches_into_a_method_however_it_was_written(write, text):
    recipe = load_recipe(write(text), overrides=["method.ccl.jsd=false"])
    assert recipe.method["ccl"]["jsd"] is False
    assert list(recipe.method) == ["ccl"]


WITH_METHODS = """method: {ccl: {jsd: false}}
optim: {lr: 0.5}
methods:
  kd: {ce_weight: 0.1, optim: {momentum: 0.5}}
  mine: {method: {ccl: {nce: false}}}
"""


def test_a_method_that_is_named_brings_the_keys_that_go_with_it(write):
    path = write(WITH_METHODS)
    recipe = load_recipe(path, {"optim.momentum": 0.7, "method": "kd"}, ["ce_weight=0.2"])
    assert recipe.method == {"kd": {}}
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.ce_weight) == (0.5, 0.7, 0.2)
    assert load_recipe(path, {"method": "kd"}).ce_weight == 0.1
    assert load_recipe(path, {"method": "mine"}).method == {"ccl": {"nce": False}}
    other = load_recipe(path, {"method": "pkt"})
    assert (other.method, other.ce_weight) == ({"pkt": {}}, 1.0)
    assert load_recipe(flags={"method": "ccl+baseline"}).method == {"ccl": {}, "baseline": {}}
    assert load_recipe(path).method == {"ccl": {"jsd": False}}
    (problem,) = problems(write("methods:\n  kd:\n    ce_weight: -1\n"), {"method": "kd"})
    assert problem.startswith("ce_weight: ")
    assert "mine.yaml:3" in problem


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("optim.lr=1e-3", 1e-3),
        ("optim.lr=.5E1", 5.0),
        ("optim.clip_norm=null", None),
        ("optim.milestones=[1, 2.5]", (1.0, 2.5)),
        ("optim.nesterov=true", True),
        ("data=folder:/a b?val=0.1&x=y", "folder:/a b?val=0.1&x=y"),
        ("teachers=[audio:cnn14?dim=2048]", ("audio:cnn14?dim=2048",)),
        ("executor.time=08:00:00", "08:00:00"),
        ("cache.use=off", "off"),  # YAML reads it as false
        ("standardize=zscore", {"*": "zscore"}),
        ("train.trackers=wandb", ("wandb",)),
    ],
)
def test_overrides_are_yaml(text, read):
    value = load_recipe(overrides=[text])
    for key in text.partition("=")[0].split("."):
        value = getattr(value, key)
    assert value == read


@pytest.mark.parametrize("text", ["epochs", "=3", "train.=3", ".epochs=3", ""])
def test_an_override_without_key_or_value_is_a_usage_error(text):
    with pytest.raises(UsageError, match="key=value"):
        load_recipe(overrides=[text])


# ---- what is wrong, in sentences


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("train:\n  batch_size: 0\n", "train.batch_size: must be greater than 0, got 0 (mine.yaml:2)"),
        ("train:\n  epochs: many\n", "train.epochs: must be a valid integer, got 'many' (mine.yaml:2)"),
        ("clip:\n  mean: [1, 2]\n", "clip.mean.2: a value is missing (mine.yaml:2)"),
        ("train: 3\n", "train: must be a section of keys and values, got 3 (mine.yaml:1)"),
        ("methods: 3\n", "methods: must be a section"),
        ("method: {}\n", "method: must have at least 1 item, got {} (mine.yaml:1)"),
        ("name: a/b\n", "name: must match pattern '^[\\w.-]+$', got 'a/b' (mine.yaml:1)"),
        (
            "optim:\n  schedule: cosin\n",
            "optim.schedule: must be 'step', 'cosine', 'linear' or 'constant', got",
        ),
        (
            "optim: {milestones: [0.5, -1]}\n",
            "optim.milestones.1: must be greater than or equal to 0, got -1",
        ),
        ("eval: {crops: 2}\n", "eval.crops: must be 1 or 3, got 2"),
        ("teachers: [a:b, a:b]\n", "teachers: a:b is named twice (mine.yaml:1)"),
        ("optim: {schedule: linear, lr: 0.01, min_lr: 0.1}\n", "optim: min_lr (0.1) must not exceed lr"),
        ("optim: {min_lr: 1.0e-5}\n", "optim: min_lr requires the cosine or linear schedule"),
        ("optim: {name: adamw, nesterov: true}\n", "optim: nesterov requires sgd"),
        ("optim: {warmup_epochs: 300}\n", "The recipe: optim.warmup_epochs (300) must be below train.epochs"),
        ("clip: {stride: 2, fps: 10}\n", "clip: stride, fps and segments all set the frame spacing"),
        ("clip: {sampling: segments, fps: 10}\n", "clip: stride, fps and segments all set"),
        ("clip: {scale: [0.5, 0.2]}\n", "clip: scale must be two numbers above 0, in ascending order"),
        ("train: {keep: best}\n", "train: keep: best needs scores on held-out videos: set eval_every"),
        ("train: {patience: 3}\n", "train: patience needs scores"),
        ("train: {keep_by: r1}\n", "train: keep_by: r1 needs eval_retrieval"),
    ],
)
def test_each_bad_value_is_one_sentence_with_its_line(write, text, start):
    (problem,) = problems(write(text))
    assert problem.startswith(start)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("train:\n  batchsize: 1\n", "Did you mean 'train.batch_size'?"),
        ("train:\n  lr: 1\n", "Did you mean 'optim.lr'?"),
        ("teacher: a:b\n", "Did you mean 'teachers'?"),
        ("eval: {zzz: 1}\n", "Valid keys: batch_size, stride, clips, crops."),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(write, text, end):
    (problem,) = problems(write(text))
    assert "there is no such key (mine.yaml:" in problem
    assert problem.endswith(end)


def test_all_problems_are_reported_at_once_each_with_its_source(write):
    overrides = ["optim.lr=0", "name=x", "extends=smoke"]
    messages = problems(write("train: {seed: -1}\n"), {"train.epochs": 0}, overrides)
    found = [(line.partition(":")[0], line.partition("(")[2].partition(")")[0]) for line in messages]
    assert found == [
        ("optim.lr", "--set optim.lr=0"),
        ("train.epochs", "the command line"),
        ("train.seed", "mine.yaml:1"),
        ("extends", "--set extends=smoke"),
    ]
    assert problems(overrides=["name=x", "name.y=1"]) == ["name: is a value, not a section (--set name.y=1)."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2\n", "mine.yaml:2"),
        ("train:\n  epochs: 1\n  epochs: 2\n", "mine.yaml:3: 'epochs' is given twice"),
        ("a: !!python/object/apply:os.system [ls]\n", "mine.yaml:1: a recipe may contain no tags"),
        ("a: &x [*x]\n", "mine.yaml:1: a recipe may contain no tags or aliases"),
        ("- a\n- b\n", "'key: value' lines"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("a: \x07\n", "unacceptable character"),
        ("[" * 5000, "mine.yaml:1: a recipe may contain"),
        ("name: 2001-99-99\n", "mine.yaml"),
        ("? [a, b]\n: 1\n", "mine.yaml"),
    ],
)
def test_what_is_no_recipe_at_all(write, text, said):
    (problem,) = problems(write(text))
    assert said in problem
    assert "\n" not in problem


def test_an_empty_file_and_no_file_are_the_defaults(write):
    assert load_recipe(write("# nothing\n")) == load_recipe() == Recipe()


@pytest.mark.parametrize(
    ("name", "said"), [("ucf51-ofical", "Did you mean '"), ("folder/absent", "'folder/absent'")]
)
def test_an_unknown_name_is_refused_with_the_nearest_and_an_absent_file_is_named(name, said):
    (problem,) = problems(name)
    assert said in problem


# ---- extends


PARENT = """name: parent
teachers: [audio:cnn14, image:resnet34]
method: {ccl: {jsd: false}}
optim: {lr: 0.5, milestones: [0.5, 0.75]}
train:
  epochs: 7
  seed: 3
bench:
  setups: {A: audio:cnn14}
  methods: {kd: {method: kd, ce_weight: 0.1}, ccl: ccl, pkt: {method: {pkt: {weight: 2}}}}
"""
CHILD = """extends: parent.yaml
teachers: [a:b]
optim: {milestones: [1]}
train: {epochs: 9}
bench:
  methods: {kd: {method: {kd: {temperature: 2}}}, ccl: {method: {ccl: {nce: false}}}}
"""


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("", {"ccl": {"jsd": False}}),
        ("method: ccl+pkt", {"ccl": {}, "pkt": {}}),
        ("method: {ccl: {nce: false}}", {"ccl": {"nce": False}}),
    ],
)
def test_sections_are_merged_by_key_and_methods_rows_and_all_else_are_replaced(write, text, method):
    write(PARENT, "parent.yaml")
    expected = {
        "name": "parent",
        "teachers": ["a:b"],
        "method": method,
        "optim": {"lr": 0.5, "milestones": [1]},
        "train": {"epochs": 9, "seed": 3},
        "bench": {
            "setups": {"A": "audio:cnn14"},
            "methods": {
                "kd": {"method": {"kd": {"temperature": 2}}},
                "ccl": {"method": {"ccl": {"nce": False}}},
                "pkt": {"method": {"pkt": {"weight": 2}}},
            },
        },
    }
    assert load_recipe(write(CHILD + text)) == Recipe.model_validate(expected)


def test_each_value_is_blamed_on_the_file_it_was_written_in(write):
    write("name: parent\noptim:\n  lr: fast\ntrain:\n  epochs: 0\n  seed: -1\n", "parent.yaml")
    messages = problems(write("extends: parent.yaml\ntrain:\n  seed: -2\n  batchsize: 1\n"))
    places = {line.partition(":")[0]: line.partition("(")[2].partition(")")[0] for line in messages}
    assert places == {
        "optim.lr": "parent.yaml:3",
        "train.epochs": "parent.yaml:5",
        "train.seed": "mine.yaml:3",
        "train.batchsize": "mine.yaml:4",
    }


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("ucf51-bnech", "No recipe 'ucf51-bnech' (mine.yaml:2). Did you mean 'ucf51-bench'"),
        ("../absent.yaml", "/../absent.yaml' (mine.yaml:2)."),
        ("[smoke, ucf51]", "extends: must be the name or the file of a recipe, got ['smoke', 'ucf51'] ("),
        ("mine.yaml", "extends: mine.yaml extends mine.yaml (mine.yaml:2)."),
        ("b.yaml", "extends: b.yaml extends c.yaml extends b.yaml (c.yaml:1)."),
    ],
)
def test_a_parent_that_is_none(write, extends, said):
    write("extends: c.yaml\n", "b.yaml")
    write("extends: ./b.yaml\n", "c.yaml")
    (problem,) = problems(write(f"name: x\nextends: {extends}\n"))
    assert said in problem


# ---- to_yaml and hash


@settings(max_examples=25)
@given(
    name=st.text("aeny019._-", min_size=1).filter(lambda name: name.strip(".")),
    description=st.text([*map(chr, range(32, 127)), *"\xa0é\u0301\u200b\u2028\u202e\ufeff\uffff𝄞😀"]),
    data=st.none() | st.sampled_from(["1e3", "no", "~", "folder:a b", "null", "2001-01-01", "0x1f", "1_000"]),
    lr=st.floats(1e-12, 1e12),
    options=st.dictionaries(
        st.sampled_from("abc"), st.booleans() | st.floats(-9, 9) | st.sampled_from(["1e3", "y"])
    ),
)
def test_to_yaml_reads_back_equal(name, description, data, lr, options):
    values = {"name": name, "description": description, "data": data, "optim": {"lr": lr}}
    recipe = Recipe.model_validate({**values, "method": {"ccl": options}})
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
