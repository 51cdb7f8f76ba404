from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.weights import WeightFile, as_safetensors, load_state, locate

FILE = WeightFile("net.pth", "https://example.org/net.pth?download=1")
STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


def test_named_weights_win_over_any_published_file(tmp_path):
    other = WeightFile("net.safetensors", "https://example.org/net.safetensors")
    other.path.parent.mkdir(parents=True)
    other.path.touch()
    assert locate(parse_model("audio:net"), FILE, other) == other.path
    own = tmp_path / "own.pth"
    own.touch()
    assert locate(parse_model(f"audio:net@{own}"), FILE, other) == own
    with pytest.raises(WeightsError, match=r"no weights file 'gone\.pth'"):
        locate(parse_model("audio:net@gone.pth"), FILE)


def test_absent_weights_say_what_to_put_where_and_which_command_gets_them():
    with pytest.raises(WeightsError) as caught:
        locate(parse_model("audio:net?dim=2048"), FILE)
    parts = str(FILE.path), FILE.url, "`ccl teachers pull 'audio:net?dim=2048'`"
    assert all(part in str(caught.value) for part in parts)
    assert caught.value.exit_code == 6


def test_hub_cache_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "hub" / "models--timm--net"
    for name, text in (("snapshots/abc/model.safetensors", ""), ("refs/main", "abc")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    file = WeightFile("net.safetensors", "hf://timm/net/model.safetensors")
    assert locate(parse_model("image:net"), file) == folder / "snapshots/abc/model.safetensors"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}]
)
def test_pth_in_every_usual_form(tmp_path, zipped, wrap):
    path = tmp_path / "net.pth"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)
    assert same(load_state(path))


def test_safetensors_are_read_where_they_are(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(STATE, path)
    assert as_safetensors(path) == path
    assert same(load_state(path))


def test_data_parallel_prefix_and_parameters_and_tied_tensors(tmp_path):
    path = tmp_path / "net.bin"
    tied = torch.nn.Parameter(torch.ones(3))
    torch.save({"module.a": tied, "module.b": tied, "module.c": torch.ones(2, 3).T}, path)
    state = load_state(path)
    assert {name: tuple(value.shape) for name, value in state.items()} == {"a": (3,), "b": (3,), "c": (3, 2)}
    assert not any(value.requires_grad for value in state.values())


def test_converted_once_and_again_when_the_source_changes(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(STATE, path)
    first = as_safetensors(path)
    written = first.stat().st_mtime_ns
    assert as_safetensors(path) == first
    assert first.stat().st_mtime_ns == written
    torch.save({"a.weight": torch.zeros(1)}, path)
    assert load_state(path)["a.weight"].item() == 0


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", ["nothing", "a page", "cut", "cut in its old form"])
def test_damaged_files_are_a_sentence(tmp_path, suffix, content):
    path = tmp_path / f"net{suffix}"
    if content.startswith("cut"):
        torch.save(STATE, path, _use_new_zipfile_serialization=content == "cut")
        path.write_bytes(path.read_bytes()[: 400 if content == "cut" else -10])
    else:
        path.write_bytes(b"<html>not found</html>" * 50 if content == "a page" else b"")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_state(path)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(2), {"a": torch.ones(2).to_sparse()}])
def test_a_pickle_without_named_dense_tensors_is_a_sentence(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="contains no tensors"):
        load_state(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("name", "match"), [("net.zip", r"\.safetensors, \.pth"), ("gone.pth", "cannot be read")]
)
def test_other_files_are_no_weights(tmp_path, name, match):
    (tmp_path / "net.zip").touch()
    with pytest.raises(WeightsError, match=match):
        load_state(tmp_path / name)


# ---- options


def test_options_over_defaults():
    spec = parse_model("audio:net?dim=2048&seconds=5")
    assert read_options(spec, dim=512, seconds=10.0, weights="") == {"dim": 2048, "seconds": 5, "weights": ""}


@pytest.mark.parametrize(
    ("option", "match"),
    [("second=5", "Did you mean 'seconds'")]
    + [(each, "must be") for each in ("dim=5.5", "dim=true", "dim=x", "seconds=x", "flag=1", "weights=1")],
)
def test_unknown_options_and_other_types_are_refused(option, match):
    with pytest.raises(PluginError, match=match) as caught:
        read_options(parse_model(f"audio:net?{option}"), dim=512, seconds=10.0, flag=False, weights="")
    assert caught.value.exit_code == 5
