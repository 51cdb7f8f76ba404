"""Commands whose videos an executor does, block by block: the same output as by one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from ccl_cli.__main__ import main
from ccl_cli.config.recipe import Executor
from ccl_cli.data.checks import findings
from ccl_cli.errors import UsageError
from ccl_cli.executors import blocks
from ccl_cli.executors.blocks import BlockExecutor, block_size
from ccl_cli.library.store import open_library
from ccl_cli.utils.paths import cache_dir

OUTPUTS = {"predict": "o.csv", "embed": "o.npz", "index": "library"}


@pytest.fixture
def folder(clips_folder, tmp_path, monkeypatch):
    """Nineteen videos, one of which cannot be read: three blocks."""
    monkeypatch.setattr(blocks, "_MIN_FILES", 8)
    folder = shutil.copytree(clips_folder / "set", tmp_path / "videos")
    (folder / "train" / "down" / "0x.mp4").write_text("not a video")
    return folder


@pytest.fixture
def inline(monkeypatch):
    """In place of an executor: every block is done in this process, unless it is to fail. Yields who was done."""
    done = []

    def run(work, settings, events):
        for name, item in work.unfinished().items.items():
            if name not in failing:
                resolve_name(work.function)(item)
                done.append(name)
        return dict.fromkeys(failing, "its node burned down")

    failing = set()
    monkeypatch.setattr(blocks, "map_items", run)
    return done, failing


def content(output):
    """What a command wrote: names, and numbers that may differ in their last digits."""
    if output.suffix == ".csv":
        rows = [line.split(",") for line in output.read_text().splitlines()[1:]]
        return [row[:4] for row in rows], [float(row[4] or 0) for row in rows]
    if output.suffix:
        features = np.load(output)
        return features["names"].tolist(), features["embedding"]
    with open_library(output) as library:
        return library.known(), np.concatenate([vectors for _, vectors in library.blocks()])


def result(command, run, folder, *more):
    """The exit code, and what was written."""
    output = Path(OUTPUTS[command])
    code = main([command, str(run), str(folder), "--output", str(output), "--workers", "0", *more])
    if not output.exists():
        return code, None
    written = content(output)
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    return code, written


def check_same(one, two, exact=False):
    assert one[0] == two[0]
    assert one[1][0] == two[1][0]
    np.testing.assert_allclose(one[1][1], two[1][1], *(0, 0) if exact else (1e-5, 2e-6))


@pytest.mark.parametrize("command", OUTPUTS)
def test_blocks_give_what_one_process_gives(run, folder, inline, command):
    whole = result(command, run, folder)
    assert whole[0] == 4
    check_same(result(command, run, folder, "--executor", "local"), whole, exact=command == "index")
    assert inline[0] == ["000000", "000001", "000002"]
    assert list((cache_dir() / "blocks").iterdir()) == []


def test_a_block_that_fails_leaves_no_output_and_the_others_are_kept(run, folder, inline, capsys):
    whole, (done, failing) = result("embed", run, folder), inline
    failing.add("000001")
    assert result("embed", run, folder, "--executor", "slurm") == (1, None)
    assert "embed: 1 of 3 blocks failed, such as 000001: its node burned down" in capsys.readouterr().err
    failing.clear()
    check_same(result("embed", run, folder, "--executor", "local"), whole)
    assert done == ["000000", "000002", "000001"]


def test_another_file_is_another_work(run, folder, inline):
    inline[1].add("000002")
    assert result("embed", run, folder, "--executor", "local") == (1, None)
    shutil.copy(folder / "train/down/1.mp4", folder / "train/down/0x.mp4")
    inline[1].clear()
    again = result("embed", run, folder, "--executor", "local")
    check_same(again, result("embed", run, folder))
    assert again[0] == 0


@pytest.mark.parametrize("words", [["embed", "--executor", "local"], ["index", "--part", "1/2"]])
@pytest.mark.parametrize(("more", "processes"), [(["--num-processes", "2"], "1"), ([], "2")])
def test_an_executor_takes_the_place_of_several_processes(
    run, folder, monkeypatch, capsys, words, more, processes
):
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert result(words[0], run, folder, *words[1:], *more) == (2, None)
    assert words[1] in capsys.readouterr().err


def test_two_commands_do_not_do_the_same_work():
    with BlockExecutor(Executor()) as one, BlockExecutor(Executor()) as two:
        one.folder("embed", ["a"])
        two.folder("embed", ["b"])
        with pytest.raises(UsageError, match="Another process runs the same work"):
            two.folder("embed", ["a"])


def test_parts_of_a_library_are_one_library(run, folder, inline, capsys):
    whole = result("index", run, folder)
    command = ["index", str(run), str(folder), "--output", "parts", "--workers", "0"]
    assert main([*command, "--part", "1/2"]) == 0
    assert main([*command, "--part", "2/2"]) == whole[0]
    assert "Part 1/2 of index is done; other parts have 1 of 3 blocks left." in capsys.readouterr().err
    assert inline[0] == ["000000", "000002", "000001"]
    check_same((4, content(Path("parts"))), whole, exact=True)
    assert list((cache_dir() / "blocks").iterdir()) == []


def test_parts_of_packed_videos_are_the_bytes_of_one_process(folder, inline, capsys):
    def packed(output, *more):
        command = ["data", "pack", f"folder:{folder}", "--output", output, "--max-unreadable", "0.2"]
        code = main([*command, "--workers", "0", *more])
        return code, {path.name: path.read_bytes() for path in Path(output).iterdir() if path.name[0] != "."}

    whole = packed("whole")
    assert packed("blocks", "--executor", "local") == whole
    assert not Path("blocks/.blocks").exists()
    inline[0].clear()
    assert packed("parts", "--part", "2/2") == (0, {})
    assert "other parts have 2 of 3 blocks left" in capsys.readouterr().err
    assert packed("parts", "--part", "1/2", "--quality", "50")[0] == 4  # begun with other settings
    assert packed("parts", "--part", "1/2") == whole
    assert packed("parts", "--part", "2/2") == whole
    assert inline[0] == ["000001", "000000", "000002"]


def test_files_that_parts_have_checked_are_not_read_again(folder, monkeypatch, capsys):
    def checked(*more):
        code = main(["data", "check", f"folder:{folder}", "--json", *more])
        return code, json.loads(capsys.readouterr().out)

    assert [checked("--part", part)[0] for part in ("1/3", "2/3", "3/3")].count(4) == 1
    examined = []
    monkeypatch.setattr(findings, "run_each", lambda jobs, *_, **__: examined.extend(jobs) or iter(()))
    assert checked()[1]["data"] == "videos"
    # Two files of one size, which were in different parts, are compared.
    assert [Path(subject.path).name for _, subject in examined] == ["3.mp4", "5.mp4"]


def test_a_part_is_prepared_without_a_manifest(folder, capsys):
    command = ["data", "prepare", f"folder:{folder}", "--output", "m.jsonl"]
    assert main([*command, "--part", "2/2"]) == 0
    assert "The same command without --part writes the manifest" in capsys.readouterr().out
    assert not Path("m.jsonl").exists()
    assert main(command) == 0
    assert Path("m.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_executors_do_blocks(run, folder, slurm, monkeypatch, executor):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CCL_EXECUTOR_POLL", "0.2")
    check_same(result("embed", run, folder, "--executor", executor), result("embed", run, folder))


@pytest.mark.parametrize(("files", "size"), [(1, 64), (64 * 256, 64), (64 * 256 + 1, 65)])
def test_blocks_grow_with_the_number_of_files(files, size):
    assert block_size(files) == size
