from __future__ import annotations

import numpy as np
import pytest

from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.checks.statistics import measure
from ccl_cli.data.sources import load_data
from tests.data.media import pictures, write


def test_counts_and_percentiles(tmp_path):
    tone = np.sin(np.arange(32000) / 8).astype(np.float32) / 2
    for number, frames in enumerate((10, 20, 30, 40, 50)):
        folder = tmp_path / "set/train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write(
            folder / f"{number}.mp4",
            pictures(frames, 96 + 16 * (number == 4)),
            sound=tone if number else None,
        )
    (tmp_path / "set/train/a/bad.mp4").write_bytes(b"bad")
    (tmp_path / "set/test/b").mkdir(parents=True)
    (tmp_path / "set/test/b/gone.mp4").touch()
    manifest = load_data(f"folder:{tmp_path}/set")
    (tmp_path / "set/test/b/gone.mp4").unlink()
    found = measure(manifest, Effort(2, 60.0))
    assert found.splits() == ["train", "test"]
    assert found.of_split("train") == {
        "with sound": 4,
        "silent": 0,
        "no track": 1,
        "unreadable": 1,
        "missing": 0,
    }
    assert found.of_class("test", 1)["missing"] == 1
    frames = found.percentiles("train")["frames"]
    assert (frames[0], frames[3], frames[-1]) == (10, 30, 50)
    assert found.percentiles("train")["rate"] == pytest.approx([25] * 7, rel=0.1)
    assert found.percentiles("test") == {}
    assert found.sizes == {(96, 64): 4, (112, 64): 1}
    plain = found.as_json()
    assert plain["sizes"] == {"96x64": 4, "112x64": 1}
    assert plain["splits"]["train"]["hours"] == pytest.approx(150 / 25 / 3600, abs=1e-3)
    assert plain["splits"]["train"]["classes"]["b"]["with sound"] == 2
    assert plain["splits"]["train"]["percentiles"]["frames"]["50"] == 30
