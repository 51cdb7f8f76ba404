"""Do plugins keep their contract? For the test suites of those who write them, and ``ccl plugins check``.

::

    from ccl_cli.testing import check_teacher


    def test_it_keeps_the_contract() -> None:
        assert not check_teacher("my:teacher").failures
"""

from __future__ import annotations

from collections.abc import Sequence

from ccl_cli.data.manifest import DataSource, Video
from ccl_cli.methods import Method
from ccl_cli.students import StudentFactory
from ccl_cli.teachers import Teacher
from ccl_cli.testing import dataset as _dataset
from ccl_cli.testing import method as _method
from ccl_cli.testing import student as _student
from ccl_cli.testing import teacher as _teacher
from ccl_cli.testing.verdicts import Report, Verdict

__all__ = ["Report", "Verdict", "check_dataset", "check_method", "check_student", "check_teacher"]


def check_teacher(teacher: Teacher | str, videos: Sequence[Video] = ()) -> Report:
    """Try a teacher on real clips: its inputs, its embeddings, and what a cache and a resumed run rely on.

    Args:
        teacher: What is typed after ``--teacher``, for one that is installed; or the object.
        videos: Real ones that it has embeddings of; else small ones that are made for the purpose.

    Raises:
        CclError: it cannot be built; its own sentence.
    """
    return Report(tuple(_teacher.verdicts(teacher, videos)))


def check_student(student: StudentFactory | str) -> Report:
    """Try a student on clips of two sizes.

    Args:
        student: What is typed after ``--student``, for one that is installed; or the function that builds it.

    Raises:
        CclError: it cannot be built; its own sentence.
    """
    return Report(tuple(_student.verdicts(student)))


def check_method(method: type[Method] | str) -> Report:
    """Try a distillation method on random numbers, with one to three teachers that lack some rows.

    Args:
        method: Its name, for one that is installed; or the class.

    Raises:
        CclError: it cannot be built with its defaults; its own sentence.
    """
    return Report(tuple(_method.verdicts(method)))


def check_dataset(source: DataSource | str, location: str = "") -> Report:
    """Try a data source on a real location.

    Args:
        source: What is typed after ``--data``, for one that is installed; or the function.
        location: For a function: what would stand after the colon.

    Raises:
        CclError: it cannot list the location; its own sentence.
    """
    return Report(tuple(_dataset.verdicts(source, location)))
