from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

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


def as_names_and_embedding(path):
    np.savez(path, names=NAMES, embedding=ROWS)


def as_arrays(path):
    np.savez_compressed(path, **dict(zip(NAMES, ROWS, strict=True)))


def as_tensors(path):
    save_file({name: torch.from_numpy(row) for name, row in zip(NAMES, ROWS, strict=True)}, path)


def as_tensor_and_header(path):
    save_file({"embedding": torch.from_numpy(ROWS)}, path, {"names": json.dumps(NAMES)})


FORMS = {
    "folder": as_folder,
    "paired.npz": as_names_and_embedding,
    "arrays.npz": as_arrays,
    "tensors.safetensors": as_tensors,
    "paired.safetensors": as_tensor_and_header,
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
    as_names_and_embedding(tmp_path / "t.npz")
    table = open_table(str(tmp_path / "t.npz"))
    assert table.find("v_Biking_g01_c01") == NAMES[2]
    assert table.find(f"split1/train/{NAMES[2]}") == NAMES[2]
    assert table.find("Archery/v_Biking_g01_c01") is None  # another video of that name
    assert table.find("iking_g01_c01") is None
    np.savez(tmp_path / "two.npz", names=["a/1", "b/1"], embedding=np.ones((2, 3)))
    table = open_table(str(tmp_path / "two.npz"))
    assert (table.find("1"), table.find("b/1")) == (
        None,
        "b/1",
    )  # a last part that is not unique decides nothing


def test_coverage_counts_videos_and_one_embedding_for_two_is_refused(tmp_path):
    as_folder(tmp_path / "t")
    teacher = from_path(tmp_path / "t")
    assert [teacher.coverage(ids) for ids in ([*NAMES, "other"], ["v_Biking_g01_c01"], ["x", "y"])] == [
        3,
        1,
        0,
    ]
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


def test_worker_opens_the_table_once_and_by_itself(path):
    look_up = pickle.loads(pickle.dumps(from_path(path).preprocess))
    from ccl_plugins import precomputed

    precomputed._open_table.cache_clear()
    look_up(make_window(video=NAMES[0]))
    first = precomputed._open_table.cache_info()
    for name in NAMES:
        look_up(make_window(video=name))
    assert precomputed._open_table.cache_info().misses == first.misses == 1


class Payload:
    def __reduce__(self):
        return print, ("run",)


BAD = {
    "mixes dimensions: 'a' has 3 and 'b' has 4": dict(a=np.ones(3), b=np.ones(4)),
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


def test_bad_files_of_a_folder_are_named(tmp_path):
    as_folder(tmp_path / "t")
    victim = tmp_path / "t" / f"{NAMES[0]}.npy"
    for content in (b"", victim.read_bytes()[:40]):
        victim.write_bytes(content)
        with pytest.raises(DataError, match="v_Archery_g01_c01"):
            from_path(tmp_path / "t")
    faults = (
        (np.ones((2, 3, 4)), "shape"),
        (np.ones(4), "mixes dimensions"),
        (np.full(5, np.inf), "not finite"),
    )
    for array, said in faults:
        np.save(victim, array)
        with pytest.raises(DataError, match=said):
            from_path(tmp_path / "t").preprocess(make_window(video=NAMES[0]))
    np.save(victim, ROWS[0])
    look_up = from_path(tmp_path / "t").preprocess
    victim.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        look_up(make_window(video=NAMES[0]))
    shutil.rmtree(tmp_path / "t")
    with pytest.raises(DataError, match="no embeddings at"):
        look_up(make_window(video=NAMES[0]))


def test_what_is_no_table(tmp_path):
    with pytest.raises(DataError, match=r"no embeddings at '.*gone'"):
        from_path(tmp_path / "gone")
    (tmp_path / "t.csv").touch()
    with pytest.raises(DataError, match="is not a table"):
        from_path(tmp_path / "t.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no embeddings"):
        from_path(tmp_path / "empty")
    with pytest.raises(PluginError, match="audio:precomputed@PATH"):
        Precomputed.from_spec(parse_model("audio:precomputed"))
    with pytest.raises(PluginError, match="zero_is_missing"):
        from_path(tmp_path / "t.csv", "?zero_is_missin=true")


def test_the_authors_table(shared):
    path = shared / "data" / "features" / "ucf51_cnn14_emb512.npz"
    teacher = from_path(path)
    assert (teacher.dim, len(teacher.table)) == (512, 6837)
    value = teacher.preprocess(make_window(video="ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01"))
    with np.load(path) as arrays:
        where = list(arrays["names"]).index("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01")
        assert np.array_equal(value, arrays["embedding"][where])
    flat = teacher.preprocess(make_window(video="v_ApplyEyeMakeup_g01_c01"))
    assert torch.equal(flat, value)
    assert teacher.preprocess(make_window(video="BasketballDunk/v_BasketballDunk_g15_c04")) is None
