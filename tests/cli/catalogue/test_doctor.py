from __future__ import annotations

import pytest

from ccl_cli import doctor

GOOD = doctor.CheckResult("torch", "ok", "2.11.0")
BAD = doctor.CheckResult("cache", "failed", "/c cannot be written", "Name another folder.")


@pytest.mark.parametrize(("results", "code"), [([GOOD, BAD], 6), ([GOOD], 0)])
def test_the_table_and_what_to_type_next_where_nothing_failed(ccl, monkeypatch, results, code):
    monkeypatch.setattr(doctor, "run_checks", lambda: iter(results))
    result = ccl("doctor")
    lines = [
        "state   check  result",
        "ok      torch  2.11.0",
        "failed  cache  /c cannot be written. Name another folder.",
    ]
    if code:
        assert result.out.splitlines() == lines
    assert (result.code, "Next:" in result.out) == (code, not code)
    assert "Next" not in ccl("doctor", "--json").out
