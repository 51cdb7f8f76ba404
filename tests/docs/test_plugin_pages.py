"""The pages about plugins, as a reader goes through them: their files are written, their commands run in order."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from tests.docs.pages import DOCS, blocks
from tests.docs.warm import FIRST
from tests.helpers.plugin_folder import PLUGINS, own_python


def follow(page: str, folder: Path, python: Path, programs: Path) -> str:
    """Write the files that a page names and run its commands; what they print."""
    shown = []
    for block in blocks(DOCS / page):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            shown += [run(line, folder, python, programs) for line in block.text.splitlines()]
    return "".join(shown)


def run(line: str, folder: Path, python: Path, programs: Path) -> str:
    path = os.pathsep.join([str(programs), str(python.parent), os.environ["PATH"]])
    (site,) = python.parents[1].glob("lib/python3*/site-packages")
    first = f"import site, sys; site.addsitedir({str(site)!r}); sys.executable = {str(python)!r}"
    # Nothing is fetched: what a package needs to be built is in the development environment.
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
    done = subprocess.run(
        line,
        shell=True,
        cwd=folder,
        env={
            **os.environ,
            **pip,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PATH": path,
            "CCL_OFFLINE": "1",
            FIRST: first,
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_method_that_compares_rows_is_the_published_one():
    """Similarity-preserving distillation: the mean over B² of squared differences, of the rows present."""
    first, second = (block.text for block in blocks(DOCS / "write_a_method.md") if block.language == "python")
    names: dict[str, Any] = {}
    exec(first + second, names)
    generator = torch.Generator().manual_seed(0)
    feature, embedding = (torch.randn(5, width, generator=generator) for width in (4, 6))
    present = torch.tensor([True, True, False, True, True])
    info = TeacherInfo("audio:x", "audio", 6)
    method = names["Similarity"](names["TowardsOptions"](), Setting(4, 2, torch.zeros(5).long(), (info,)))
    student = StudentOutput(feature, torch.zeros(5, 2))
    terms = method(student, {"audio:x": Embedding(embedding, present)}, None)
    similar, wanted = (F.normalize(x[present] @ x[present].mT) for x in (feature, embedding))
    torch.testing.assert_close(terms["similarity/audio:x"], (similar - wanted).square().mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("write_a_teacher.md", ["image:mine", "ccl-teacher-mine", "ok      pickling", "1 passed"]),
        ("write_a_method.md", ["Weight of the cosine distance.", "ok      absent rows"]),
        ("add_a_data_set.md", ["ok      order", "--data stems:my_videos"]),
        ("hub_teachers.md", ["my_model?pool=mean#", "ok      pickling", "video-hf-", "top-1"]),
    ],
)
def test_a_reader_who_copies_the_page_has_a_working_plugin(programs, tmp_path, page, shown):
    (tmp_path / "plugins").symlink_to(PLUGINS)
    out = follow(page, tmp_path, own_python(tmp_path / "venv"), programs)
    for text in shown:
        assert text in out
    assert "failed  " not in out
