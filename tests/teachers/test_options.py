from __future__ import annotations

import pytest

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import PluginError
from ccl_cli.teachers.options import read_options


def test_options_over_defaults():
    spec = parse_model("audio:net?dim=2048&seconds=5")
    assert read_options(spec, dim=512, seconds=10.0, weights="") == {"dim": 2048, "seconds": 5, "weights": ""}


def test_unknown_option_suggests_the_nearest():
    with pytest.raises(PluginError, match=r"no option 'second'.*Did you mean 'seconds'") as caught:
        read_options(parse_model("audio:net?second=5"), dim=512, seconds=10.0)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("option", ["dim=5.5", "dim=true", "dim=x", "seconds=x", "flag=1", "weights=1"])
def test_other_types_are_refused(option):
    name = option.partition("=")[0]
    with pytest.raises(PluginError, match=f"'{name}' must be"):
        read_options(parse_model(f"audio:net?{option}"), dim=512, seconds=10.0, flag=False, weights="")
