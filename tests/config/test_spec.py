from __future__ import annotations

import pytest

from ccl_cli.config.spec import Spec, parse_data, parse_model
from ccl_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("audio:cnn14", Spec("audio", "cnn14")),
        ("r2plus1d_18", Spec("", "r2plus1d_18")),
        ("r2plus1d_18@a.safetensors", Spec("", "r2plus1d_18", "a.safetensors")),
        ("audio:cnn14@w/my.pth?dim=2048", Spec("audio", "cnn14", "w/my.pth", {"dim": 2048})),
        (
            "image:resnet34.tv_in1k?pretrained=false",
            Spec("image", "resnet34.tv_in1k", None, {"pretrained": False}),
        ),
        ("a:b@C:\\w.pth", Spec("a", "b", "C:\\w.pth")),
        ("a:b@user@host/w.pth", Spec("a", "b", "user@host/w.pth")),
        ("a:b@odd?name.pth?x=1", Spec("a", "b", "odd?name.pth", {"x": 1})),
        ("a:b?x=1&y=two&z=0.5&n=null", Spec("a", "b", None, {"x": 1, "y": "two", "z": 0.5, "n": None})),
        ("  a:b  ", Spec("a", "b")),
    ],
)
def test_models(text, spec):
    assert parse_model(text) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("ucf51", Spec("ucf51", "")),
        ("folder:/data/my videos?val=0.1", Spec("folder", "/data/my videos", None, {"val": 0.1})),
        ("csv:a@b.csv", Spec("csv", "a@b.csv")),
        ("csv:C:/list.csv", Spec("csv", "C:/list.csv")),
    ],
)
def test_data(text, spec):
    assert parse_data(text) == spec


@pytest.mark.parametrize(
    "text", ["", "audio:", ":cnn14", "audio:cnn14@", "a:b?x", "a:b?x=1&y", "a:b?=1", "a:b?"]
)
def test_what_is_no_model(text):
    with pytest.raises(UsageError) as caught:
        parse_model(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", ":path", "?x=1"])
def test_what_is_no_data_set(text):
    with pytest.raises(UsageError):
        parse_data(text)
