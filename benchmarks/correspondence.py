"""Table and plot of the study in docs/claim.md: the figures as sound and picture drift apart.

    cd runs
    python ../benchmarks/correspondence.py 1=correspondence-1 0.5=correspondence 0=correspondence-0

Of several folders at one correspondence the last that has a cell gives its figures. A clip looks the same
whatever the correspondence, so the baseline and the students of an image teacher alone are those of one
folder, the first that has them. A difference is between runs of one seed; its interval is Student's t, 95 %.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from ccl_cli.report.axes import Axis, grid
from ccl_cli.report.collect import collect
from ccl_cli.report.drawing import Drawing, Line, Mark, Text, in_rows, legend
from ccl_cli.report.paired import Paired
from ccl_cli.report.png import png

SETUPS = ("A", "I", "AI")
METRICS = {"top1": "top-1", "r1": "R@1"}
COLOURS = {"baseline": "ink", "fitnet": "s1", "ccl": "s0"}
ALONE = (  # at one correspondence only: in the table, not drawn
    "ccl sharp sound",
    "ccl x1",
    "ccl x1 sharp sound",
    "ccl joint",
    "ccl official",
    "ccl w/o composition",
)

Values = dict[int, float]  # by seed
Figures = dict[tuple[str, str, str], Values]  # by method, setup, metric


def figures(folder: Path) -> Figures:
    """Every figure of a benchmark's folder, in percent."""
    found: Figures = {}
    for run in collect([folder]).runs:
        for (_, metric), value in run.figures.items():
            if metric in METRICS:
                found.setdefault((run.method, run.setup, metric), {})[run.seed] = value
    return found


def merged(folders: Sequence[str]) -> Figures:
    """Those of several folders; later ones take the place of earlier ones."""
    found: Figures = {}
    for folder in folders:
        found |= figures(Path(folder))
    return found


def filled(by_dial: dict[float, Figures]) -> dict[float, Figures]:
    """What does not depend on sound, at every correspondence."""
    everywhere: Figures = {}
    for found in by_dial.values():
        for key, values in found.items():
            if key[1] in ("", "I"):
                everywhere.setdefault(key, values)
    return {dial: everywhere | found for dial, found in by_dial.items()}


def difference(found: Figures, method: str, setup: str, metric: str) -> Paired:
    """A method minus the baseline, seed by seed."""
    ours, theirs = found[method, setup, metric], found["baseline", "", metric]
    shared = {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}
    return Paired("synthetic", setup, metric, method, "baseline", shared)


def rows(by_dial: dict[float, Figures], metric: str) -> list[list[str]]:
    """One row for each method, setup and correspondence; what does not depend on sound stands once."""
    table = []
    for method, setup in [("baseline", ""), *((m, s) for s in SETUPS for m in (*COLOURS, *ALONE))]:
        dials = [dial for dial, found in by_dial.items() if (method, setup, metric) in found]
        deaf = setup in ("", "I")
        for dial in dials[:1] if deaf else dials:
            found = by_dial[dial]
            values = found[method, setup, metric]
            row = [method, setup or "-", "any" if deaf else f"{dial:g}", spread(values), str(len(values))]
            table.append(row + over(found, method, setup, metric))
    return table


def over(found: Figures, method: str, setup: str, metric: str) -> list[str]:
    """Mean difference from the baseline and its interval, as texts."""
    pair = difference(found, method, setup, metric)
    if method == "baseline" or pair.mean is None:
        return ["", ""]
    interval = "{:+.1f} to {:+.1f}".format(*pair.interval) if pair.interval else "no spread"
    return [f"{pair.mean:+.1f}", interval]


def spread(values: Values) -> str:
    """Mean, and standard deviation if there is one."""
    sd = f" ± {deviation(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values.values()):.1f}{sd}"


def deviation(values: Values) -> float:
    """Over seeds; 0 for a single one."""
    return statistics.stdev(values.values()) if len(values) > 1 else 0.0


def markdown(by_dial: dict[float, Figures]) -> str:
    """Both tables."""
    parts = []
    for metric, name in METRICS.items():
        header = ["method", "setup", "correspondence", f"{name} (%)", "seeds", "over the baseline", "95 %"]
        lines = [header, ["---"] * 2 + ["---:"] * 5, *rows(by_dial, metric)]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def plot(by_dial: dict[float, Figures]) -> Drawing:
    """Means and standard deviations over the correspondence, one panel for each setup."""
    shown = [values for found in by_dial.values() for key, values in found.items() if key[2] == "top1"]
    reach = [statistics.fmean(values.values()) + deviation(values) for values in shown]
    scale = Axis.over(reach, 200, 28, zero=True)
    panels = [panel(by_dial, setup, scale) for setup in SETUPS]
    there = {method for found in by_dial.values() for method, _, _ in found}
    names = [(name, colour) for name, colour in COLOURS.items() if name in there]
    return in_rows([legend(names, 480, 4), in_rows(panels, 3, "Setups")], 1, "Top-1 by correspondence")


def panel(by_dial: dict[float, Figures], setup: str, down: Axis) -> Drawing:
    """One setup; all have one scale."""
    keys = {method: (method, "" if method == "baseline" else setup, "top1") for method in COLOURS}
    across = Axis(0, 1, 46, 300)
    marks: list[Mark] = [Text(0, 14, f"{setup}: top-1 (%)", 13), *grid(across, down, "correspondence")]
    for method, key in keys.items():
        points = {dial: found[key] for dial, found in sorted(by_dial.items()) if key in found}
        if not points:
            continue
        line = [(across(dial), down(statistics.fmean(values.values()))) for dial, values in points.items()]
        marks.append(Line(line, COLOURS[method], 2, dashed=method == "baseline"))
        for dial, values in points.items():
            mean, sd = statistics.fmean(values.values()), deviation(values)
            bar = [(across(dial), down(mean - sd)), (across(dial), down(mean + sd))]
            marks.append(Line(bar, COLOURS[method]))
    return Drawing(310, 236, f"Top-1 with {setup} by correspondence", marks)


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    everything = filled({float(dial): merged(folders.split(",")) for dial, folders in named.items()})
    print(markdown(everything))
    Path("correspondence.png").write_bytes(png(plot(everything)))
