"""Sentence encoders as teachers: a small one, written and read by the real library, without a network."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import DataError, PluginError, SystemSetupError, WeightsError
from ccl_text.sentences import BYTES, readable, to_bytes, to_texts
from ccl_text.teacher import DEFAULT, SentenceTeacher
from tests.plugins.sentence_encoder import write_encoder
from tests.plugins.windows import make_window

NAMES = ("MoveRight", "move_down")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoders") / "small")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    def refuse(*arguments):
        raise AssertionError("somebody asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def captions(tmp_path):
    def write(text, name="captions.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def from_spec(text):
    return SentenceTeacher.from_spec(parse_model(text))


def told(encoder, options="", classes=NAMES):
    teacher = from_spec(f"text:sentence@{encoder}{options}")
    teacher.use_classes(classes)
    return teacher


# ---- class names


def test_class_names_are_embedded_as_the_library_does(encoder):
    from sentence_transformers import SentenceTransformer

    teacher = told(encoder)
    assert (teacher.modality, teacher.dim, teacher.sees_label) == ("text", 16, True)
    assert teacher.preprocess.sentences == ("a video of Move Right", "a video of move down")
    x = torch.stack([teacher.preprocess(make_window()), torch.zeros(BYTES, dtype=torch.uint8)])
    made = teacher(x)
    library = SentenceTransformer(str(encoder), device="cpu", local_files_only=True)
    expected = library.encode(["a video of Move Right"], convert_to_tensor=True)
    torch.testing.assert_close(made[:1], expected, rtol=1e-5, atol=1e-6)
    assert not made[1].any()
    with torch.inference_mode():
        torch.testing.assert_close(teacher(x), made)


def test_prompts(encoder):
    plain, other = (told(encoder, f"?prompt={each}") for each in ("{}", "somebody plays {} and {}"))
    assert plain.preprocess.sentences[0] == "Move Right"
    assert other.preprocess.sentences[0] == "somebody plays Move Right and Move Right"
    assert plain.fingerprint != other.fingerprint
    for wrong in ("a video", "{name}"):
        with pytest.raises(PluginError, match=r"has no \{\} for the text"):
            told(encoder, f"?prompt={wrong}")


def test_class_names_in_words():
    names = ("ApplyEyeMakeup", "playing_the_cello", "dog bark", "YoYo2Go", "猫")
    words = ["Apply Eye Makeup", "playing the cello", "dog bark", "Yo Yo2 Go", "猫"]
    assert [readable(name) for name in names] == words


def test_the_fingerprint_is_of_weights_tokenizer_prompt_and_classes(encoder, tmp_path):
    same = told(shutil.copytree(encoder, tmp_path / "elsewhere" / "small"))
    assert same.fingerprint == told(encoder).fingerprint
    other_weights = told(write_encoder(tmp_path / "x" / "small", seed=1))
    tokenizer = shutil.copytree(encoder, tmp_path / "y" / "small")
    text = (tokenizer / "tokenizer.json").read_text()
    (tokenizer / "tokenizer.json").write_text(text.replace('"right"', '"wrong"'))
    prints = {
        each.fingerprint for each in (same, other_weights, told(tokenizer), told(encoder, classes=("a", "b")))
    }
    assert len(prints) == 4


def test_a_class_that_was_not_told_is_a_sentence(encoder):
    with pytest.raises(PluginError, match="did not receive the class names"):
        from_spec(f"text:sentence@{encoder}").preprocess(make_window())


# ---- captions


def test_captions_by_video_and_none_is_missing(encoder, captions):
    path = captions('\ufeffid,text,more\na/b,"a dog,\n in the rain",x\na/c,cat,\na/d,   ,\n')
    teacher = told(encoder, f"?captions={path}")
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
    preprocess = told(encoder, f"?captions={path}&prompt=a {{}}").preprocess
    assert preprocess.views is None
    seen = {to_texts(preprocess(make_window(seed=seed))[None])[0] for seed in range(20)}
    assert seen == {"a cat", "a dog"}
    fixed = {to_texts(preprocess(make_window(seed=seed, training=False))[None])[0] for seed in range(20)}
    assert fixed == {"a cat"}


def test_what_the_captions_say_is_part_of_the_fingerprint_and_where_they_lie_is_not(encoder, captions):
    one, same, other = (
        told(encoder, f"?captions={captions(f'id,text{chr(10)}a/b,{text}', name)}")
        for text, name in (("cat", "1.csv"), ("cat", "2.csv"), ("dog", "3.csv"))
    )
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert len(pickle.dumps(one.preprocess)) < 2000


def test_captions_that_change_meanwhile_are_noticed(encoder, captions):
    path = captions("id,text\na/b,cat\n")
    preprocess = told(encoder, f"?captions={path}").preprocess
    captions("id,text\na/b,dog\n")
    with pytest.raises(DataError, match="have changed"):
        preprocess(make_window())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("video,text\na,b\n", "no column 'id'"),
        ("id,caption\na,b\n", "no column 'text'"),
        ("id,text\na,\n", "contains no captions"),
        (b"id,text\na,\xff\xfe\n", "cannot be read as captions"),
        ('id,text\na,"b', "cannot be read as captions"),
    ],
)
def test_bad_captions_are_a_sentence(encoder, captions, tmp_path, content, said):
    path = tmp_path / "none.csv" if content is None else captions(content)
    with pytest.raises(DataError, match=said) as caught:
        told(encoder, f"?captions={path}")
    assert str(path) in caught.value.message


# ---- bytes


@pytest.mark.parametrize("text", ["", "Straße 猫 🎻", "x" * 2000, "猫" * 900])
def test_sentences_travel_as_bytes(text):
    row = to_bytes(text)
    assert (row.shape, row.dtype) == ((BYTES,), torch.uint8)
    (back,) = to_texts(row[None])
    assert text.startswith(back)
    assert len(back.encode()) >= min(len(text.encode()), BYTES - 3)


def test_random_bytes_do_not_stop_it(encoder):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, BYTES), dtype=np.uint8))
    assert told(encoder)(x).isfinite().all()


# ---- what is missing


def test_without_an_encoder_the_sentence_says_how_to_get_one():
    with pytest.raises(WeightsError) as caught:
        from_spec("text:sentence")
    assert f"'{DEFAULT}' is not on this machine" in str(caught.value)
    assert "`ccl teachers pull text:sentence`" in str(caught.value)
    with pytest.raises(WeightsError, match=r"`hf download some/encoder`"):
        from_spec("text:sentence@some/encoder")
    for wrong in ("./gone", "/nowhere/at/all", "x", "a b/c d"):
        with pytest.raises(WeightsError, match="Give a folder, or owner/name") as caught:
            from_spec(f"text:sentence@{wrong}")
        assert caught.value.exit_code == 6


def test_a_download_of_the_hub_is_found_in_its_cache(encoder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / f"models--{DEFAULT.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(encoder, repository / "snapshots" / ("0" * 40))
    assert from_spec("text:sentence").dim == 16
    assert from_spec(f"text:sentence@{DEFAULT}").fingerprint == from_spec("text:sentence").fingerprint


def test_files_that_were_put_where_ccl_says_are_found(encoder):
    files = SentenceTeacher.weight_files(parse_model("text:sentence"))
    assert len({file.path for file in files}) == len(files)
    for file in files:
        source = encoder / file.url.removeprefix(f"hf://{DEFAULT}/")
        if source.is_file():
            file.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, file.path)
    shutil.copytree(
        encoder / "2_Normalize", files[0].path.parent / "2_Normalize"
    )  # the published one has none
    assert from_spec("text:sentence").dim == 16


def test_what_can_be_pulled(encoder):
    files = SentenceTeacher.weight_files(parse_model("text:sentence"))
    assert f"hf://{DEFAULT}/model.safetensors" in {file.url for file in files}
    with pytest.raises(WeightsError, match=r"`hf download some/encoder`"):
        SentenceTeacher.weight_files(parse_model("text:sentence@some/encoder"))
    assert not SentenceTeacher.weight_files(parse_model(f"text:sentence@{encoder}"))


@pytest.mark.parametrize("name", ["modules.json", "model.safetensors", "1_Pooling/config.json"])
def test_half_an_encoder_and_a_damaged_one_are_refused(encoder, tmp_path, name):
    half = shutil.copytree(encoder, tmp_path / "half")
    said = r"half.* (no modules\.json|cannot be loaded as a sentence encoder)"
    (half / name).write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be loaded as a sentence encoder"):
        from_spec(f"text:sentence@{half}")
    (half / name).unlink()
    with pytest.raises(WeightsError, match=said):
        from_spec(f"text:sentence@{half}")


def test_without_the_library_the_sentence_says_what_to_install(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SystemSetupError, match="pip install sentence-transformers") as caught:
        from_spec(f"text:sentence@{encoder}")
    assert caught.value.exit_code == 6


def test_bad_options(encoder):
    with pytest.raises(PluginError, match="no option 'caption'"):
        told(encoder, "?caption=x.csv")
    with pytest.raises(PluginError, match="no option 'weights'"):
        from_spec("text:sentence?weights=random")


def test_workers_import_neither_the_library_nor_torchvision():
    """The module of the preprocessing is what the fork server of the loader's workers imports."""
    code = "import sys, ccl_text.sentences; print(sorted({'transformers', 'timm'} & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
