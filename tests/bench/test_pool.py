from __future__ import annotations

import json
import os

import pytest
import torch

from ccl_cli.bench.cell import Place
from ccl_cli.bench.pool import places, run_cells


def test_every_gpu_takes_one_cell_and_further_ones_share(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [place.name for place in places(None)] == ["gpu 0", "gpu 1"]
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places(None)] == ["5", "7"]


def test_cells_share_a_cpu_s_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [place.threads for place in places(None)] == [None]
    assert [place.threads for place in places(3)] == [2, 2, 2]
    assert places(20)[0].threads == 1


class Cell:
    """What the pool needs of a cell that cannot even begin."""

    phase, record, label = "final", {"method": "x"}, "x"

    class recipe:
        class train:
            max_steps = 0


def test_a_process_sees_its_place_only_and_leaves_a_reason(tmp_path):
    where = [Place("cpu", {"CUDA_VISIBLE_DEVICES": "3", "CCL_RUNS": str(number)}, 1) for number in range(2)]
    cells = [(Cell(), tmp_path / str(number)) for number in range(3)]
    began, ended = [], []
    run_cells(
        cells,
        where,
        ["no.such.module", "json"],
        began=lambda cell, place: began.append(place),
        ended=lambda cell, folder, code: ended.append((folder.name, code)),
    )
    assert began[:2] == where
    assert len(began) == 3
    assert sorted(ended) == [("0", 1), ("1", 1), ("2", 1)]
    for number in range(3):
        error = json.loads((tmp_path / str(number) / "error.json").read_text())
        assert error["message"].startswith("AttributeError")
        assert "Internal error" in (tmp_path / str(number) / "log.txt").read_text()


@pytest.mark.parametrize("text", ["", "0"])
def test_preloading_never_fails(text, monkeypatch):
    import importlib

    from ccl_cli.bench import preload

    monkeypatch.setenv("CCL_PRELOAD", text + ",no.such.module,ccl_cli.nothing")
    importlib.reload(preload)
