"""Conclusion of a report: the gain from the teachers, in sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ccl_cli.report.records.comparison import Comparison, compare
from ccl_cli.report.records.results import BASELINE, Cell, Results
from ccl_cli.report.records.run import METRICS
from ccl_cli.utils.sentences import listed

_OURS = "ccl"


def conclusion(results: Results) -> list[str]:
    """State the gain over the baseline with most teachers, then with each single teacher, then failed runs.

    Returns:
        One sentence each; no sentence if no run had a teacher.
    """
    cells = [cell for cell in results.ranked() if cell.method == main_method(results) and cell.setup]
    if not cells:
        return []
    failed = [f"{run.label}, seed {run.seed}" for run in results.runs.failed]
    failures = [f"Failed and left out: {listed(failed, 4)}."] if failed else []
    base = results.find(results.data, BASELINE, "", results.metric)
    if base is None or not base.runs:
        why = "failed in every run" if base else "is not among these runs"
        unknown = "The gain from the teachers is not known: the baseline, the student without them,"
        return [f"{unknown} {why}.", *failures]
    most, *others = sorted(cells, key=lambda cell: -len(_modalities(results, cell)))
    alone = [cell for cell in others if len(_modalities(results, cell)) == 1]
    return [_sentence(results, most), *(_line(results, cell) for cell in alone), *failures]


def main_method(results: Results) -> str:
    """The method whose gain the conclusion states: ccl, or without it the best method."""
    return _OURS if any(cell.method == _OURS for cell in results.ranked()) else results.best.method


def _sentence(results: Results, cell: Cell) -> str:
    method = "" if _OURS == cell.method == results.best.method else f" ({cell.method})"
    begin = f"With {_teachers(results, cell)}{method} the student"
    pair = _pair(results, cell)
    if pair.mean is None:
        return f"{begin} could not be compared with the baseline: {_why_not_compared(cell)}."
    name, points = METRICS[results.metric][1], f"{abs(pair.mean):.1f}"
    more = f"{points} points {'more' if pair.mean > 0 else 'less'} {name} than"
    begin += f" gets {f'the same {name} as' if points == '0.0' else more} without"
    if pair.n == 1:
        return f"{begin}. One seed shows no interval: use `--seeds 4`."
    if pair.interval is None:
        return f"{begin}, the same in all {pair.n} seeds."
    low, high = pair.interval
    if not pair.clear_of_zero:
        interval = f"95 % interval {low:+.1f} to {high:+.1f}, {pair.n} seeds"
        return f"{begin}, which is not clear of zero ({interval})."
    sign = "" if low > 0 else "+"
    return f"{begin} (95 % interval {low:{sign}.1f} to {high:{sign}.1f}, {pair.n} seeds)."


def _line(results: Results, cell: Cell) -> str:
    teachers, pair = _teachers(results, cell), _pair(results, cell)
    begin = f"{teachers[0].upper()}{teachers[1:]}:"
    if pair.mean is None:
        return f"{begin} {_why_not_compared(cell)}."
    mean, interval = pair.texts(1)
    interval = interval or ("one seed" if pair.n == 1 else f"the same in all {pair.n} seeds")
    unclear = ", not clear of zero" if pair.interval and not pair.clear_of_zero else ""
    return f"{begin} {mean} ({interval}){unclear}."


def _why_not_compared(cell: Cell) -> str:
    return "no seed was trained with both" if cell.runs else "every run failed"


def _pair(results: Results, cell: Cell) -> Comparison:
    pairs = compare(results, cell.method, BASELINE, results.metric, [cell.setup])
    return next(pair for pair in pairs if pair.data == results.data)


def _teachers(results: Results, cell: Cell) -> str:
    modalities = _modalities(results, cell)
    if len(modalities) == 1:
        return f"the {modalities[0]} teacher alone"
    if modalities:
        return "both teachers" if len(modalities) == 2 else f"all {len(modalities)} teachers"
    return f"the teachers of {cell.setup}"


def _modalities(results: Results, cell: Cell) -> Sequence[str]:
    """Modalities of a setup's teachers; if all of its runs failed, decoded from the letters of the setup."""
    if cell.runs:
        return cell.runs[0].modalities
    letters, names = re.findall("[A-Z][a-z]*", cell.setup), results.modalities
    return [names[each] for each in letters] if all(each in names for each in letters) else []
