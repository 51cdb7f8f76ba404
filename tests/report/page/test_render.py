from __future__ import annotations

from ccl_cli.report.page.render import render_macro


def test_backquotes_are_code_and_the_rest_is_escaped():
    shown = render_macro("macros.html", "absent", text="Use `ccl eval <RUN>`, not <b>.")
    assert shown == '<p class="absent">Use <code>ccl eval &lt;RUN&gt;</code>, not &lt;b&gt;.</p>'


def test_columns_of_numbers_are_aligned_to_the_right():
    lines = [
        ("class", "verdict", "recall", "interval"),
        ("a", "not", "12", "3 to 7"),
        ("b", "weakly", "-", ""),
    ]
    shown = render_macro("macros.html", "table", lines=lines)
    assert shown.count('<td class="text">') == 2
    assert "<td>12</td>" in shown
