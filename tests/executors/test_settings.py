"""Who does the work: from the machine's variables, the recipe and the command line."""

from __future__ import annotations

import pytest

from ccl_cli.__main__ import main
from ccl_cli.cli.common import executor_flags
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Executor
from ccl_cli.errors import RecipeError


def settings(*typed, **variables):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"CCL_EXECUTOR{name}", value)
        return load_recipe(None, executor_flags(*typed)).executor


def test_a_machine_s_variables_and_flags_that_are_typed():
    assert settings(None) == Executor()
    machine = {
        "": "slurm",
        "_PARTITION": "8",
        "_GPUS": "2",
        "_OPTIONS": "{qos: long, nice: 5, time-min: 12:00:00}",
        "_JOBS": "3",
    }
    options = {"qos": "long", "nice": 5, "time-min": "12:00:00"}
    expected = Executor(name="slurm", partition="8", gpus=2, options=options, jobs=3)
    assert settings(None, None, **machine) == expected
    assert settings("local", 1, **machine) == expected.model_copy(update={"name": "local", "jobs": 1})


@pytest.mark.parametrize("variable", [{"_GPU": "1"}, {"_GPUS": "-1"}, {"_OPTIONS": "{a"}])
def test_a_variable_that_says_nothing_valid_is_refused(variable):
    with pytest.raises(RecipeError):
        settings(None, **variable)


def test_who_does_the_work_is_no_part_of_the_experiment():
    recipe = load_recipe("smoke")
    assert recipe.model_copy(update={"executor": Executor(name="slurm")}).hash() == recipe.hash()


def test_an_executor_that_nobody_has_is_refused(capsys):
    assert main(["bench", "ucf51-bench", "--executor", "sulrm"]) == 5
    assert "Did you mean 'slurm'?" in capsys.readouterr().err
