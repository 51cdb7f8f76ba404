"""What the training loop relies on, for every teacher that lies in this repository."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from ccl_cli.config.spec import parse_model
from ccl_efficientat.teacher import EfficientAT
from ccl_plugins.cnn14 import Cnn14
from ccl_plugins.precomputed import Precomputed
from ccl_plugins.small import SmallAudio, SmallImage
from ccl_plugins.timm_image import TimmImage
from ccl_text.teacher import SentenceTeacher
from tests.plugins.sentence_encoder import write_encoder
from tests.plugins.windows import make_window

SOUND = torch.from_numpy(np.random.default_rng(2).uniform(-1, 1, 20_000).astype(np.float32))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    table = tmp_path_factory.mktemp("tables") / "text.npz"
    rows = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    np.savez(table, names=["a/b", "a/c"], embedding=rows)
    encoder = write_encoder(table.with_name("encoder"))
    captions = table.with_name("captions.csv")
    captions.write_text("id,text\na/b,a cat\na/c,somebody plays the cello in rain\n")
    return {
        "audio": Cnn14.from_spec(parse_model("audio:cnn14?weights=random&seconds=0.31")),
        "image": TimmImage.from_spec(parse_model("image:mobilenetv3_small_050?weights=random")),
        "small audio": SmallAudio.from_spec(parse_model("audio:small?weights=random")),
        "small image": SmallImage.from_spec(parse_model("image:small?weights=random")),
        "text": Precomputed.from_spec(parse_model(f"text:precomputed@{table}")),
        "efficientat": EfficientAT.from_spec(
            parse_model("audio:efficientat_mn04?weights=random&seconds=0.5")
        ),
        "captions": SentenceTeacher.from_spec(parse_model(f"text:sentence@{encoder}?captions={captions}")),
    }


@pytest.fixture(params=["audio", "image", "small audio", "small image", "text", "efficientat", "captions"])
def teacher(request, teachers):
    return teachers[request.param]


def inputs(teacher, count=2):
    windows = [
        make_window(sound=SOUND[1000 * i :], seed=i, video="a/b" if i % 2 else "a/c") for i in range(count)
    ]
    return torch.stack([teacher.preprocess(window) for window in windows])


def test_input_is_what_the_preprocess_declares(teacher):
    value = teacher.preprocess(make_window(sound=SOUND))
    assert tuple(value.shape) == tuple(teacher.preprocess.shape)
    assert value.dtype == teacher.preprocess.dtype


def test_embedding_is_finite_float32_of_the_declared_width(teacher):
    with torch.inference_mode():
        embedding = teacher(inputs(teacher))
    assert embedding.shape == (2, teacher.dim)
    assert embedding.dtype == torch.float32
    assert embedding.isfinite().all()
    assert embedding.std(dim=0).max() > 0  # it depends on the input


def test_embedding_does_not_depend_on_the_call_or_the_batch(teacher):
    x = inputs(teacher)
    with torch.inference_mode():
        whole = teacher(x)
        assert torch.equal(whole, teacher(x))
        alone = torch.cat([teacher(row[None]) for row in x])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-4)


def test_autocast_changes_little_and_not_the_type(teacher):
    x = inputs(teacher, 1)
    with torch.inference_mode():
        exact = teacher(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = teacher(x)
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(rough, exact).min() > 0.98


def test_it_stays_frozen(teacher):
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_preprocess_survives_the_trip_to_a_worker(teacher):
    packed = pickle.dumps(teacher.preprocess)
    assert len(packed) < 2000  # settings, no weights, no tables
    again = pickle.loads(packed)
    assert repr(again) == repr(teacher.preprocess)
    one, other = (p(make_window(sound=SOUND, seed=4)) for p in (teacher.preprocess, again))
    assert torch.equal(one, other)


def test_preprocess_is_random_only_in_training(teacher):
    one, other = (teacher.preprocess(make_window(sound=SOUND, training=False, seed=s)) for s in (1, 2))
    assert torch.equal(one, other)


def test_classes_and_their_probabilities(teachers):
    assert len(teachers["audio"].classes) == 527
    assert len(teachers["image"].classes) == 1000
    assert teachers["text"].classes is None
    for teacher in (teachers["audio"], teachers["image"]):
        with torch.inference_mode():
            probabilities = teacher.class_probabilities(inputs(teacher, 2))
        assert probabilities.shape == (2, len(teacher.classes))
        assert probabilities.min() >= 0
        assert probabilities.max() <= 1


def test_fingerprint_names_weights_variant_and_preprocess(teachers):
    teacher = teachers["image"]
    before = teacher.fingerprint
    kept = teacher.preprocess, teacher.variant
    parameter = next(teacher.parameters())
    try:
        number = parameter.view(-1)[0].clone()
        parameter.view(-1)[0] += 1
        other = copy.deepcopy(teacher)
        del other._weights_hash  # of weights that are not frozen as they should be
        changed = {before, other.fingerprint}
        parameter.view(-1)[0] = number
        teacher.variant = "other"
        changed.add(teacher.fingerprint)
        teacher.variant = kept[1]
        teacher.preprocess = copy.copy(kept[0])
        assert teacher.fingerprint == before
        object.__setattr__(teacher.preprocess, next(iter(vars(kept[0]))), 3)
        changed.add(teacher.fingerprint)
    finally:
        teacher.preprocess, teacher.variant = kept
    assert len(changed) == 4


def test_the_weights_are_hashed_once(monkeypatch):
    teacher = TimmImage.from_spec(parse_model("image:mobilenetv3_small_050?weights=random"))
    hashed = []
    monkeypatch.setattr("ccl_cli.teachers.hash_tensors", lambda named: hashed.append(list(named)) or "0")
    assert teacher.fingerprint == teacher.fingerprint
    assert len(hashed) == 1
    before, teacher.variant = teacher.fingerprint, "other"  # what costs nothing is looked at each time
    assert teacher.fingerprint != before
    assert len(hashed) == 1


def test_weights_random_is_admitted_and_the_same_every_time_and_leaves_the_random_state_alone(teachers):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = TimmImage.from_spec(parse_model("image:mobilenetv3_small_050?weights=random"))
    assert torch.equal(torch.get_rng_state(), state)
    assert again.fingerprint == teachers["image"].fingerprint
    assert teachers["audio"].random_weights
    assert teachers["image"].random_weights
    assert not teachers["text"].random_weights
