from __future__ import annotations

from ccl_cli import doctor


def test_the_table(ccl, monkeypatch):
    results = [
        doctor.CheckResult("torch", "ok", "2.11.0"),
        doctor.CheckResult("cache", "failed", "/c cannot be written", "Name another folder."),
    ]
    monkeypatch.setattr(doctor, "run_checks", lambda: iter(results))
    result = ccl("doctor")
    assert result.code == 6
    assert result.out.splitlines() == [
        "state   check  result",
        "ok      torch  2.11.0",
        "failed  cache  /c cannot be written. Name another folder.",
    ]
    assert "1 of 2 checks failed" in result.err


def test_what_to_type_next_where_nothing_failed(ccl, monkeypatch):
    monkeypatch.setattr(doctor, "run_checks", lambda: iter([doctor.CheckResult("torch", "ok", "2.11.0")]))
    result = ccl("doctor")
    assert result.code == 0
    assert [line.split("  ")[1] for line in result.out.splitlines()[-3:]] == [
        "ccl demo",
        "ccl data check folder:my_videos",
        "ccl train --recipe ucf51 --dry-run",
    ]
    assert "Next" not in ccl("doctor", "--json").out
