"""Teachers with a classifier of their own: CNN14, EfficientAT, the small networks and timm's."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers.classifier import audioset_classes
from ccl_cli.testing import check_teacher
from ccl_cli.testing import teacher as kit
from ccl_efficientat.teacher import EfficientAT
from ccl_plugins.cnn14 import Cnn14
from ccl_plugins.small import SmallAudio, SmallImage
from ccl_plugins.timm_image import TimmImage
from ccl_text.teacher import SentenceTeacher
from tests.plugins.sentence_encoder import write_encoder
from tests.plugins.windows import make_window, sound

SHORT = {
    Cnn14: "audio:cnn14?weights=random&seconds=0.31",
    EfficientAT: "audio:efficientat_mn04?weights=random&seconds=0.5",
    SmallAudio: "audio:small?weights=random&seconds=0.234375",
    SmallImage: "image:small?weights=random",
    TimmImage: "image:mobilenetv3_small_050?weights=random",
}
OWN = (Cnn14, EfficientAT, SmallAudio)


def build(cls):
    return cls.from_spec(parse_model(SHORT[cls]))


def label(cls):
    return SHORT[cls].partition("?")[0]


@pytest.mark.parametrize("cls", [*SHORT, SentenceTeacher])
def test_autocast_changes_little_and_not_the_type(cls, tmp_path):
    if cls is SentenceTeacher:
        teacher = cls.from_spec(parse_model(f"text:sentence@{write_encoder(tmp_path / 'encoder')}"))
        teacher.use_classes(["a cat", "a dog"])
    else:
        teacher = build(cls)
    x = teacher.preprocess(make_window(sound=sound(20_000)))[None]
    with torch.inference_mode():
        exact = teacher(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = teacher(x)
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(rough, exact).min() > 0.98


@pytest.mark.parametrize("cls", SHORT)
def test_random_weights_are_admitted_and_leave_the_random_state_alone(cls):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    teacher = build(cls)
    assert teacher.random_weights
    assert not cls.weight_files(parse_model(SHORT[cls]))
    assert not cls.weight_files(parse_model(f"{label(cls)}@own.pth"))
    assert torch.equal(torch.get_rng_state(), state)


def test_efficientat_keeps_the_contract(monkeypatch):
    monkeypatch.setattr(kit, "run_each", lambda jobs, work, **_: ((job, work(job)) for job in jobs))
    assert check_teacher(build(EfficientAT)).failures == []


@pytest.mark.parametrize("cls", OWN)
@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_of_another_network_are_refused(cls, change, tmp_path):
    state = dict(build(cls).own_weights())
    name, value = list(state.items())[0 if change != "shape" else -1]
    state |= {"missing": {}, "unknown": {"block9.weight": value}, "shape": {name: torch.zeros(3)}}[change]
    state = {key: each.clone() for key, each in state.items() if (key, change) != (name, "missing")}
    save_file(state, tmp_path / "other.safetensors")
    said = "block9" if change == "unknown" else name
    with pytest.raises(WeightsError, match=rf"does not fit {label(cls)}.*{said}") as caught:
        cls.from_spec(parse_model(f"{label(cls)}@{tmp_path}/other.safetensors"))
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("cls", [Cnn14, EfficientAT])
def test_half_precision_and_missing_counters_are_fine(cls, tmp_path):
    first = build(cls)
    state = {
        name: (value.half() if value.is_floating_point() else value).clone()
        for name, value in first.own_weights().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(state, tmp_path / "half.safetensors")
    second = cls.from_spec(parse_model(f"{label(cls)}@{tmp_path}/half.safetensors"))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("spec", "name", "url"),
    [
        ("audio:cnn14?dim=512", "Cnn14_emb512_mAP=0.420.pth", "https://zenodo.org/"),
        ("audio:cnn14?dim=2048", "Cnn14_mAP=0.431.pth", "https://zenodo.org/"),
        (
            "audio:efficientat_mn10",
            "mn10_as_mAP_471.pt",
            "https://github.com/fschmid56/EfficientAT/releases/",
        ),
    ],
)
def test_never_random_unasked(tmp_path, spec, name, url):
    cls = Cnn14 if "cnn14" in spec else EfficientAT
    with pytest.raises(WeightsError, match="ccl teachers pull") as caught:
        cls.from_spec(parse_model(spec))
    assert str(tmp_path / "cache" / "weights" / name) in str(caught.value)
    (file,) = cls.weight_files(parse_model(spec))
    assert file.filename == name
    assert file.url.startswith(url)


@pytest.mark.parametrize(
    "spec",
    ["audio:cnn14?dim=128", "audio:cnn14?seconds=0.3", "audio:efficientat_mn11", "image:small?size=8", "image:small?dim=0"]
    + [f"{label(cls)}?{wrong}" for cls in OWN for wrong in ("seconds=0.05", "seconds=1e9", "seconds=-1", "weights=no", "second=5")]
    + [f"{label(cls)}@x.pth?weights=random" for cls in SHORT],
)  # fmt: skip
def test_bad_options(spec):
    cls = next(cls for cls in SHORT if spec.startswith(label(cls)[:11]))
    random = "" if "weights" in spec else "&weights=random"
    with pytest.raises(PluginError):
        cls.from_spec(parse_model(spec + random))


def test_class_names():
    names = audioset_classes()
    assert len(names) == len(set(names)) == 527
    assert (names[0], names[1], names[-1]) == ("Speech", "Male speech, man speaking", "Field recording")
