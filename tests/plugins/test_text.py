"""Sentence encoders as teachers: a small one, written and read by the real library, without a network."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import DataError, PluginError, WeightsError
from ccl_cli.teachers.class_names import ClassNames
from ccl_text.sentences import BYTES, to_bytes, to_texts
from ccl_text.teacher import DEFAULT, SentenceTeacher
from tests.plugins.sentence_encoder import write_encoder
from tests.plugins.windows import make_window

NAMES = ("MoveRight", "move_down")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoders") / "small")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)


@pytest.fixture
def captions(tmp_path):
    def write(text, name="captions.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def from_spec(text):
    return SentenceTeacher.from_spec(parse_model(text))


def teacher_of(encoder, options="", classes=NAMES):
    teacher = from_spec(f"text:sentence@{encoder}{options}")
    teacher.use_classes(classes)
    return teacher


# ---- class names


def test_class_names_are_embedded_as_the_library_does(encoder):
    from sentence_transformers import SentenceTransformer

    teacher = teacher_of(encoder)
    assert (teacher.modality, teacher.dim, teacher.sees_label) == ("text", 16, True)
    sentences = ["a video of Move Right", "a video of move down"]
    assert teacher.preprocess.sentences == sentences
    x = torch.stack([teacher.preprocess(make_window()), torch.tensor([0])])
    library = SentenceTransformer(str(encoder), device="cpu", local_files_only=True)
    expected = library.encode(sentences, convert_to_tensor=True)[0]
    torch.testing.assert_close(teacher(x), torch.stack([expected, 0 * expected]), rtol=1e-5, atol=1e-6)


def test_prompts(encoder):
    plain, other = (teacher_of(encoder, f"?prompt={each}") for each in ("{}", "somebody plays {} and {}"))
    assert plain.preprocess.sentences[0] == "Move Right"
    assert other.preprocess.sentences[0] == "somebody plays Move Right and Move Right"
    assert plain.fingerprint != other.fingerprint


def test_class_names_in_words():
    names = ("ApplyEyeMakeup", "playing_the_cello", "dog bark", "YoYo2Go", "猫")
    words = ["Apply Eye Makeup", "playing the cello", "dog bark", "Yo Yo2 Go", "猫"]
    assert ClassNames("{}", names).sentences == words


def test_the_fingerprint_is_of_weights_tokenizer_prompt_and_classes(encoder, tmp_path):
    same = teacher_of(shutil.copytree(encoder, tmp_path / "elsewhere" / "small"))
    assert same.fingerprint == teacher_of(encoder).fingerprint
    other_weights = teacher_of(write_encoder(tmp_path / "x" / "small", seed=1))
    tokenizer = shutil.copytree(encoder, tmp_path / "y" / "small")
    text = (tokenizer / "tokenizer.json").read_text()
    (tokenizer / "tokenizer.json").write_text(text.replace('"right"', '"wrong"'))
    prints = {
        each.fingerprint
        for each in (same, other_weights, teacher_of(tokenizer), teacher_of(encoder, classes=("a", "b")))
    }
    assert len(prints) == 4


# ---- captions


def test_captions_by_video_and_none_is_missing(encoder, captions):
    path = captions('\ufeffid,text,more\na/b,"a dog,\n in the rain",x\na/c,cat,\na/d,   ,\n')
    teacher = teacher_of(encoder, f"?captions={path}")
    assert not teacher.sees_label
    assert to_texts(teacher.preprocess(make_window())[None]) == ["a dog, in the rain"]
    assert teacher.preprocess(make_window(video="a/d")) is None
    assert teacher.preprocess(make_window(video="b")) is None
    assert teacher.coverage(["a/b", "a/d", "b", "a/c"]) == 2
    assert teacher.preprocess.views == "track"
    x = torch.stack([teacher.preprocess(make_window(video=each)) for each in ("a/b", "a/c", "a/b")])
    made = teacher(x)
    assert torch.equal(made[0], made[2])
    assert not torch.allclose(made[0], made[1], atol=1e-3)


def test_several_captions_are_drawn_from_in_training_only(encoder, captions):
    path = captions("id,text\na/b,cat\na/b,dog\n")
    preprocess = teacher_of(encoder, f"?captions={path}&prompt=a {{}}").preprocess
    assert preprocess.views is None
    seen = {to_texts(preprocess(make_window(seed=seed))[None])[0] for seed in range(20)}
    assert seen == {"a cat", "a dog"}
    fixed = {to_texts(preprocess(make_window(seed=seed, training=False))[None])[0] for seed in range(20)}
    assert fixed == {"a cat"}


def test_what_the_captions_say_is_part_of_the_fingerprint_and_where_they_lie_is_not(encoder, captions):
    one, same, other = (
        teacher_of(encoder, f"?captions={captions(f'id,text{chr(10)}a/b,{text}', name)}")
        for text, name in (("cat", "1.csv"), ("cat", "2.csv"), ("dog", "3.csv"))
    )
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert len(pickle.dumps(one.preprocess)) < 2000


def test_captions_that_change_meanwhile_are_noticed(encoder, captions):
    path = captions("id,text\na/b,cat\n")
    preprocess = teacher_of(encoder, f"?captions={path}").preprocess
    captions("id,text\na/b,dog\n")
    with pytest.raises(DataError, match="have changed"):
        preprocess(make_window())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("video,text\na,b\n", "no column 'id'"),
        ("id,text\na,\n", "contains no captions"),
        (b"id,text\na,\xff\xfe\n", "cannot be read as captions"),
        ('id,text\na,"b', "cannot be read as captions"),
    ],
)
def test_bad_captions_are_a_sentence(encoder, captions, tmp_path, content, said):
    path = tmp_path / "none.csv" if content is None else captions(content)
    with pytest.raises(DataError, match=said) as caught:
        teacher_of(encoder, f"?captions={path}")
    assert str(path) in caught.value.message


# ---- bytes


@pytest.mark.parametrize("text", ["", "Straße 猫 🎻", "x" * 2000, "猫" * 900])
def test_sentences_travel_as_bytes(text):
    row = to_bytes(text)
    assert (row.shape, row.dtype) == ((BYTES,), torch.uint8)
    (back,) = to_texts(row[None])
    assert text.startswith(back)
    assert len(back.encode()) >= min(len(text.encode()), BYTES - 3)


def test_random_bytes_do_not_stop_it(encoder, captions):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, BYTES), dtype=np.uint8))
    teacher = teacher_of(encoder, f"?captions={captions('id,text' + chr(10) + 'a,b')}")
    assert teacher(x).isfinite().all()
    assert not teacher(0 * x).any()


# ---- what is missing or wrong


def test_an_encoder_that_is_not_here_names_the_command():
    with pytest.raises(
        WeightsError, match=f"'{DEFAULT}' is not on this machine.*`ccl teachers pull text:sentence`"
    ):
        from_spec("text:sentence")
    with pytest.raises(WeightsError, match=r"`ccl teachers pull text:sentence@some/encoder`"):
        from_spec("text:sentence@some/encoder")


def test_what_is_pulled_from_the_hub(encoder, monkeypatch):
    names = [path.relative_to(encoder).as_posix() for path in encoder.rglob("*") if path.is_file()]
    listed = [*names, "onnx/model.onnx", "onnx/config.json", "pytorch_model.bin"]
    files = [SimpleNamespace(rfilename=name, size=3, lfs=None) for name in listed]
    answer = SimpleNamespace(siblings=files, card_data=None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: answer)
    pulled = SentenceTeacher.weight_files(parse_model("text:sentence"))
    assert {file.filename for file in pulled} >= {
        f"{DEFAULT}/{each}" for each in ("modules.json", "1_Pooling/config.json")
    }
    assert not any("onnx" in file.url or file.url.endswith(".bin") for file in pulled)
    for file in pulled:  # put by hand where ccl says
        file.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(encoder / file.url.partition("@main/")[2], file.path)
    assert from_spec("text:sentence").dim == 16
    assert not SentenceTeacher.weight_files(parse_model(f"text:sentence@{encoder}"))


@pytest.mark.parametrize("name", ["modules.json", "model.safetensors", "1_Pooling/config.json"])
@pytest.mark.parametrize("content", [b"nothing", None])
def test_half_an_encoder_and_a_damaged_one_are_refused(encoder, tmp_path, name, content):
    half = shutil.copytree(encoder, tmp_path / "half")
    (half / name).unlink() if content is None else (half / name).write_bytes(content)
    with pytest.raises(WeightsError, match=r"half' (is not such a model|has no model|cannot be loaded)"):
        from_spec(f"text:sentence@{half}")


@pytest.mark.parametrize("options", ["caption=x.csv", "weights=random", "prompt=a video", "prompt={name}"])
def test_bad_options(encoder, options):
    with pytest.raises(PluginError, match=r"has no (option|\{\} for the text)"):
        teacher_of(encoder, f"?{options}")


def test_workers_import_neither_the_library_nor_torchvision():
    """The module of the preprocessing is what the fork server of the loader's workers imports."""
    code = "import sys, ccl_text.sentences; print(sorted({'transformers', 'timm'} & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
