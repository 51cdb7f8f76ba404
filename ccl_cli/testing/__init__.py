"""Conformance checks of plugins, for test suites and ``ccl plugins check``.

::

    from ccl_cli.testing import check_teacher


    def test_contract() -> None:
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
    """Check a teacher on real clips: inputs, embeddings, and the requirements of caches and resumed runs.

    Args:
        teacher: Name of an installed teacher, as after ``--teacher``, or a teacher object.
        videos: Videos that the teacher can embed. Default: small generated videos.

    Raises:
        CclError: the teacher cannot be built.
    """
    return Report(tuple(_teacher.verdicts(teacher, videos)))


def check_student(student: StudentFactory | str) -> Report:
    """Check a student, by name or by its factory function, on clips of two sizes.

    Raises:
        CclError: the student cannot be built.
    """
    return Report(tuple(_student.verdicts(student)))


def check_method(method: type[Method] | str) -> Report:
    """Check a method, by name or class, on random numbers, with one to three teachers and absent rows.

    Raises:
        CclError: the method cannot be built with default options.
    """
    return Report(tuple(_method.verdicts(method)))


def check_dataset(source: DataSource | str, location: str = "") -> Report:
    """Check a data source, given as after ``--data`` or as a function and a location.

    Raises:
        CclError: the source cannot list the location.
    """
    return Report(tuple(_dataset.verdicts(source, location)))
