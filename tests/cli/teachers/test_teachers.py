from __future__ import annotations

import json

import pytest

from ccl_cli.teachers import weights
from tests.cli.conftest import table


@pytest.mark.parametrize(
    ("name", "modality", "dim"),
    [
        ("audio:cnn14", "audio", "512"),
        ("audio:cnn14?dim=2048", "audio", "2048"),
        ("image:resnet34", "image", "512"),
        ("flow:precomputed", "flow", "known once its weights are downloaded"),
    ],
)
def test_teachers_info(ccl, name, modality, dim):
    result = ccl("teachers", "info", name)
    assert result.code == 0
    rows = table(result.out)
    assert ["modality", modality] in rows
    assert ["dim", *dim.split()] in rows
    facts = json.loads(ccl("teachers", "info", name, "--json").out)
    assert (facts["modality"], str(facts["dim"])) == (modality, dim)


def test_teachers_info_says_where_weights_are_or_belong(ccl, tmp_path):
    out = ccl("teachers", "info", "audio:cnn14").out
    place = tmp_path / "cache" / "weights" / "Cnn14_emb512_mAP=0.420.pth"
    assert f"not downloaded; `ccl teachers pull 'audio:cnn14'` saves it to {place}" in out
    assert "https://zenodo.org/" in out
    assert "CC BY 4.0" in out
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    out = ccl("teachers", "info", "audio:cnn14").out
    assert "not downloaded" not in out
    assert str(place) in out


def test_teachers_pull(ccl, monkeypatch, tmp_path):
    pulled = []
    monkeypatch.setattr(
        weights, "pull", lambda file, progress=None: pulled.append(file.url) or tmp_path / "net.pth"
    )
    assert ccl("teachers", "pull", "audio:cnn14").out == f"{tmp_path / 'net.pth'}\n"
    assert ccl("teachers", "pull", "audio:cnn14?weights=random").out == ""
    assert [url.startswith("https://zenodo.org/") for url in pulled] == [True]


def test_teachers_pull_of_several_files_says_where_all_are_listed(ccl, monkeypatch):
    files = [weights.WeightFile(name, f"https://example.org/{name}") for name in ("config.json", "net.pth")]
    monkeypatch.setattr("ccl_plugins.cnn14.Cnn14.weight_files", classmethod(lambda cls, spec: files))
    monkeypatch.setenv("CCL_OFFLINE", "1")
    result = ccl("teachers", "pull", "audio:cnn14")
    assert (result.code, "All 2 files: `ccl teachers info audio:cnn14`" in result.err) == (6, True)
