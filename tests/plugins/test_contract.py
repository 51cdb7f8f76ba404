"""What the training loop relies on, for teachers that lie in this repository; the built-in ones are in tests/testing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccl_cli.config.spec import parse_model
from ccl_cli.testing import check_teacher
from ccl_cli.testing import teacher as kit
from ccl_efficientat.teacher import EfficientAT
from ccl_plugins.cnn14 import Cnn14
from ccl_plugins.timm_image import TimmImage
from ccl_text.teacher import SentenceTeacher
from tests.plugins.sentence_encoder import write_encoder
from tests.plugins.windows import make_window

TEACHERS = {
    "cnn14": (Cnn14, "audio:cnn14?weights=random&seconds=0.31"),
    "timm": (TimmImage, "image:mobilenetv3_small_050?weights=random"),
    "efficientat": (EfficientAT, "audio:efficientat_mn04?weights=random&seconds=0.5"),
    "sentence": (SentenceTeacher, "text:sentence@encoder"),
}


@pytest.fixture(params=TEACHERS)
def teacher(request, tmp_path):
    cls, text = TEACHERS[request.param]
    if cls is SentenceTeacher:
        write_encoder(tmp_path / "encoder")
    made = cls.from_spec(parse_model(text))
    if made.sees_label:
        made.use_classes(["a cat", "a dog"])
    return made


def test_autocast_changes_little_and_not_the_type(teacher):
    sound = torch.from_numpy(np.random.default_rng(2).uniform(-1, 1, 20_000).astype(np.float32))
    x = teacher.preprocess(make_window(sound=sound))[None]
    with torch.inference_mode():
        exact = teacher(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = teacher(x)
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(rough, exact).min() > 0.98


@pytest.mark.parametrize("teacher", ["efficientat", "sentence"], indirect=True)
def test_packages_of_their_own_keep_the_contract(teacher, monkeypatch):
    monkeypatch.setattr(kit, "run_each", lambda jobs, work, **_: ((job, work(job)) for job in jobs))
    assert check_teacher(teacher).failures == []


@pytest.mark.parametrize("name", ["timm", "efficientat"])
def test_random_weights_are_admitted_and_leave_the_random_state_alone(name):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    cls, text = TEACHERS[name]
    assert cls.from_spec(parse_model(text)).random_weights
    assert torch.equal(torch.get_rng_state(), state)
