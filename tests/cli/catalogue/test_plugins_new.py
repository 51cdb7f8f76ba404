from __future__ import annotations

from pathlib import Path


def test_the_command_says_what_to_do_next(ccl, tmp_path):
    result = ccl("plugins", "new", "teacher", "my:teacher", "--output", "a b/c")
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "a b" / "c" / "src" / "ccl_teacher_my_teacher" / "__init__.py").is_file()
    lines = [line.strip() for line in result.out.splitlines()]
    assert lines[0] == "Created a b/c, a package for the teacher my:teacher."
    assert "EDIT HERE in `a b/c/src/ccl_teacher_my_teacher/__init__.py`" in result.out
    assert lines[-3:] == [
        "pip install -e 'a b/c'",
        "ccl plugins check my:teacher",
        "ccl train --teacher my:teacher --data folder:my_videos",
    ]


def test_a_folder_in_use_stays_as_it_is(ccl, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    result = ccl("plugins", "new", "method", "mine", "--output", "used")
    assert (result.code, result.out) == (2, "")
    assert "Error: 'used' is not empty." in result.err
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["mine.txt"]
    result = ccl("plugins", "new", "method", "mine", "--output", "used/mine.txt")
    assert result.code == 2
    assert "is a file" in result.err


def test_a_disk_that_refuses_leaves_nothing_behind(ccl, tmp_path, monkeypatch):
    write_text = Path.write_text

    def refuse(path, text, *rest, **options):
        if path.name == "test_contract.py":
            raise OSError(28, "No space left on device", str(path))
        return write_text(path, text, *rest, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    result = ccl("plugins", "new", "method", "mine")
    assert (result.code, result.out) == (6, "")
    assert "No space left on device" in result.err
    assert list(tmp_path.iterdir()) == []
