from __future__ import annotations

from pathlib import Path


def test_the_command_says_what_to_do_next(ccl, tmp_path):
    result = ccl("plugins", "new", "teacher", "my:teacher", "--output", "a b/c")
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "a b" / "c" / "src" / "ccl_teacher_my_teacher" / "__init__.py").is_file()
    assert "EDIT HERE in `a b/c/src/ccl_teacher_my_teacher/__init__.py`" in result.out
    assert [line.strip() for line in result.out.splitlines()][-3:] == [
        "pip install -e 'a b/c'",
        "ccl plugins check my:teacher",
        "ccl train --teacher my:teacher --data folder:my_videos",
    ]


def test_a_folder_in_use_stays_and_a_disk_that_refuses_leaves_nothing(ccl, tmp_path, monkeypatch):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    assert ccl("plugins", "new", "method", "mine", "--output", "used").code == 2
    write_text = Path.write_text

    def refuse(path, text, *rest, **options):
        if path.name == "test_contract.py":
            raise OSError(28, "No space left on device", str(path))
        return write_text(path, text, *rest, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    assert ccl("plugins", "new", "method", "mine").code == 6
    assert [path.name for path in tmp_path.rglob("*")] == ["used", "mine.txt"]
