from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import DataError, PluginError
from ccl_plugins.precomputed import Precomputed, open_table
from tests.plugins.windows import make_window

NAMES = ["Archery/v_Archery_g01_c01", "Archery/v_Archery_g01_c02", "Biking/v_Biking_g01_c01"]
ROWS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def as_folder(path):
    for name, row in zip(NAMES, ROWS, strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(path / f"{name}.npy", row)


NAMED = dict(zip(NAMES, ROWS, strict=True))
FORMS = {
    "folder": as_folder,
    "paired.npz": lambda path: np.savez(path, names=NAMES, embedding=ROWS),
    "arrays.npz": lambda path: np.savez_compressed(path, **NAMED),
    "tensors.safetensors": lambda path: save_numpy(NAMED, path),
    "paired.safetensors": lambda path: save_numpy({"embedding": ROWS}, path, {"names": json.dumps(NAMES)}),
}


@pytest.fixture(params=FORMS)
def path(request, tmp_path):
    FORMS[request.param](tmp_path / request.param)
    return tmp_path / request.param


def from_path(path, options=""):
    return Precomputed.from_spec(parse_model(f"flow:precomputed@{path}{options}"))


def test_every_form_gives_the_same_teacher(path):
    teacher = from_path(path)
    assert (teacher.modality, teacher.dim, len(teacher.table)) == ("flow", 5, 3)  # the modality is the user's
    for name, row in zip(NAMES, ROWS, strict=True):
        value = teacher.preprocess(make_window(video=name))
        assert value.dtype == torch.float32
        assert np.array_equal(teacher(value[None])[0], row)
    assert teacher.preprocess(make_window(video="Archery/v_Archery_g01_c03")) is None
    assert teacher.variant == f"precomputed@{path.name}"


def test_fingerprint_is_of_the_contents_not_of_the_place(tmp_path):
    marks = set()
    for name, write in FORMS.items():
        write(tmp_path / name)
        marks.add(from_path(tmp_path / name).fingerprint)
    assert len(marks) == 1
    np.savez(tmp_path / "changed.npz", names=NAMES, embedding=ROWS + np.eye(3, 5, dtype=np.float32))
    np.savez(tmp_path / "renamed.npz", names=["x", *NAMES[1:]], embedding=ROWS)
    others = {from_path(tmp_path / name).fingerprint for name in ("changed.npz", "renamed.npz")}
    others.add(from_path(tmp_path / "paired.npz", "?zero_is_missing=true").fingerprint)
    assert len(others | marks) == 4


def test_names_may_have_more_or_fewer_folders_than_ids(tmp_path):
    FORMS["paired.npz"](tmp_path / "t.npz")
    table = open_table(str(tmp_path / "t.npz"))
    assert table.find("v_Biking_g01_c01") == NAMES[2]
    assert table.find(f"split1/train/{NAMES[2]}") == NAMES[2]
    assert table.find("Archery/v_Biking_g01_c01") is None  # another video of that name
    assert table.find("iking_g01_c01") is None
    np.savez(tmp_path / "two.npz", names=["a/1", "b/1"], embedding=np.ones((2, 3)))
    table = open_table(str(tmp_path / "two.npz"))
    assert table.find("1") is None  # a last part that is not unique decides nothing
    assert table.find("b/1") == "b/1"


def test_coverage_counts_videos_and_one_embedding_for_two_is_refused(tmp_path):
    as_folder(tmp_path / "t")
    teacher = from_path(tmp_path / "t")
    for ids, count in (([*NAMES, "other"], 3), (["v_Biking_g01_c01"], 1), (["x", "y"], 0)):
        assert teacher.coverage(ids) == count
    np.savez(tmp_path / "t.npz", names=["0001"], embedding=np.ones((1, 3)))
    with pytest.raises(DataError, match="both 'train/0001' and 'test/0001'"):
        from_path(tmp_path / "t.npz").coverage(["train/0001", "test/0001"])


def test_several_rows_are_drawn_in_training_and_averaged_otherwise(tmp_path):
    rows = np.arange(12, dtype=np.float64).reshape(4, 3)
    (tmp_path / "t").mkdir()
    np.save(tmp_path / "t" / "v.npy", rows)
    np.save(tmp_path / "t" / "none.npy", np.zeros((0, 3)))
    look_up = from_path(tmp_path / "t").preprocess
    drawn = {tuple(look_up(make_window(video="v", seed=seed)).tolist()) for seed in range(60)}
    assert drawn == {tuple(row) for row in rows}
    assert look_up(make_window(video="v", training=False)).tolist() == rows.mean(axis=0).tolist()
    assert look_up(make_window(video="none")) is None


def test_zeros_are_an_embedding_unless_told_otherwise(tmp_path):
    np.savez(tmp_path / "t.npz", names=["v", "w"], embedding=np.stack([np.zeros(3), np.ones(3)]))
    assert from_path(tmp_path / "t.npz").preprocess(make_window(video="v")).tolist() == [0, 0, 0]
    look_up = from_path(tmp_path / "t.npz", "?zero_is_missing=true").preprocess
    assert look_up(make_window(video="v")) is None
    assert look_up(make_window(video="w")) is not None


def test_the_preprocessing_is_small_and_opens_the_table_by_itself(path):
    look_up = pickle.dumps(from_path(path).preprocess)
    assert len(look_up) < 500
    assert np.array_equal(pickle.loads(look_up)(make_window(video=NAMES[0])), ROWS[0])


class Payload:
    def __reduce__(self):
        return print, ("run",)


BAD = {
    "mixes dimensions: 'b' has 4": dict(a=np.ones(3), b=np.ones(4)),
    r"shape \[2, 3, 4\]": dict(a=np.ones((2, 3, 4))),
    "'b'.*not finite numbers": dict(names=["a", "b"], embedding=np.array([[1, 2], [np.nan, 1]])),
    "'a'.*not finite numbers": dict(a=np.array(["x", "y"])),
    "1 different names for 2": dict(names=["a", "a"], embedding=np.ones((2, 3))),
    "cannot be read": dict(names=np.array(["a", Payload()], dtype=object), embedding=np.ones((2, 3))),
    "contains no embeddings": {},
}


@pytest.mark.parametrize("said", BAD)
def test_bad_tables_are_a_sentence(tmp_path, said, capsys):
    np.savez(tmp_path / "t.npz", **BAD[said])
    with pytest.raises(DataError, match=said) as caught:
        from_path(tmp_path / "t.npz")
    assert caught.value.exit_code == 4
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["paired.npz", "paired.safetensors"])
def test_a_table_that_is_cut_off_is_a_sentence(tmp_path, name):
    FORMS[name](tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        from_path(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr", np.ones((2, 3, 4)), np.full(5, np.inf)]
)
def test_bad_files_of_a_folder_are_named(tmp_path, content):
    for folder in ("before", "t"):
        as_folder(tmp_path / folder)
    look_up = from_path(tmp_path / "before").preprocess
    for folder in ("before", "t"):
        victim = tmp_path / folder / f"{NAMES[0]}.npy"
        victim.write_bytes(content) if isinstance(content, bytes) else np.save(victim, content)
    for use in (lambda: from_path(tmp_path / "t"), lambda: look_up(make_window(video=NAMES[0]))):
        with pytest.raises(DataError, match="v_Archery_g01_c01"):
            use()


def test_what_is_no_table(tmp_path):
    (tmp_path / "t.csv").touch()
    (tmp_path / "empty").mkdir()
    for name, said in (("gone", "no embeddings at"), ("t.csv", "not a table"), ("empty", "no embeddings")):
        with pytest.raises(DataError, match=said):
            from_path(tmp_path / name)
    for text in ("audio:precomputed", "audio:precomputed@t.csv?zero_is_missin=true"):
        with pytest.raises(PluginError, match="audio:precomputed"):
            Precomputed.from_spec(parse_model(text))


def test_the_authors_table(shared):
    path = shared / "data" / "features" / "ucf51_cnn14_emb512.npz"
    teacher = from_path(path)
    assert (teacher.dim, len(teacher.table)) == (512, 6837)
    name = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01"
    with np.load(path) as arrays:
        expected = arrays["embedding"][list(arrays["names"]).index(name)]
    for video in (name, name.partition("/")[2]):
        assert np.array_equal(teacher.preprocess(make_window(video=video)), expected)
    assert teacher.preprocess(make_window(video="BasketballDunk/v_BasketballDunk_g15_c04")) is None
