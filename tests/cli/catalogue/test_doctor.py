from __future__ import annotations

from ccl_cli import doctor


def test_the_table(ccl, monkeypatch):
    findings = [
        doctor.Finding("torch", "ok", "2.11.0"),
        doctor.Finding("cache", "failed", "/c cannot be written", "Name another folder."),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    result = ccl("doctor")
    assert result.code == 6
    assert result.out.splitlines() == [
        "state   part   found                 what to do",
        "ok      torch  2.11.0",
        "failed  cache  /c cannot be written  Name another folder.",
    ]
    assert "1 of 2 checks failed" in result.err
