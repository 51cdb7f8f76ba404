from __future__ import annotations

import pytest

from ccl_cli.config.spec import Spec, parse_data, parse_model
from ccl_cli.errors import UsageError


@pytest.mark.parametrize(
    ("parse", "text", "spec"),
    [
        (parse_model, " audio:cnn14 ", Spec("audio", "cnn14")),
        (parse_model, "r2plus1d_18@a.safetensors", Spec("", "r2plus1d_18", "a.safetensors")),
        (parse_model, "a:b@w/my.pth?dim=2048", Spec("a", "b", "w/my.pth", {"dim": 2048})),
        (parse_model, "a:b@C:\\w.pth", Spec("a", "b", "C:\\w.pth")),
        (parse_model, "a:b@user@host/w.pth", Spec("a", "b", "user@host/w.pth")),
        (parse_model, "a:b@odd?name.pth?x=1", Spec("a", "b", "odd?name.pth", {"x": 1})),
        (parse_model, "a:b?x=true&y=z&n=null", Spec("a", "b", None, {"x": True, "y": "z", "n": None})),
        (parse_data, "ucf51", Spec("ucf51", "")),
        (parse_data, "folder:/data/my videos?val=0.1", Spec("folder", "/data/my videos", None, {"val": 0.1})),
        (parse_data, "csv:C:/a@b.csv", Spec("csv", "C:/a@b.csv")),
    ],
)
def test_specs(parse, text, spec):
    assert parse(text) == spec
    assert parse(str(spec)) == spec


@pytest.mark.parametrize("text", ["", "audio:", ":cnn14", "audio:cnn14@", "a:b?x", "a:b?x=1&y", "a:b?=1"])
def test_no_model(text):
    with pytest.raises(UsageError):
        parse_model(text)


@pytest.mark.parametrize("text", ["", ":path", "?x=1"])
def test_no_data_set(text):
    with pytest.raises(UsageError):
        parse_data(text)
