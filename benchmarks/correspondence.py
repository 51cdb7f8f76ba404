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

from matplotlib.axes import Axes

from ccl_cli.report.collect import collect
from ccl_cli.report.paired import Paired
from ccl_cli.report.plot import Panel, Plot, legend, save
from ccl_cli.report.style import LIGHT

SETUPS = ("A", "I", "AI")
METRICS = {"top1": "top-1", "r1": "R@1"}
COLOURS = {"baseline": LIGHT["ink"], "fitnet": LIGHT["s1"], "ccl": LIGHT["s0"]}
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


def plot(by_dial: dict[float, Figures]) -> Plot:
    """Means and standard deviations over the correspondence, one panel for each setup."""
    shown = [values for found in by_dial.values() for key, values in found.items() if key[2] == "top1"]
    reach = max(statistics.fmean(values.values()) + deviation(values) for values in shown)
    there = {method for found in by_dial.values() for method, _, _ in found}
    names = [(name, colour) for name, colour in COLOURS.items() if name in there]
    return Plot(
        "Top-1 by correspondence", [[legend(names, 480, 4)], [panel(by_dial, s, reach) for s in SETUPS]]
    )


def panel(by_dial: dict[float, Figures], setup: str, reach: float) -> Panel:
    """One setup; all have one scale."""
    keys = {method: (method, "" if method == "baseline" else setup, "top1") for method in COLOURS}

    def draw(axes: Axes) -> None:
        for method, key in keys.items():
            points = {dial: found[key] for dial, found in sorted(by_dial.items()) if key in found}
            means = [statistics.fmean(values.values()) for values in points.values()]
            sds = [deviation(values) for values in points.values()]
            looks = {"color": COLOURS[method], "linestyle": "--" if method == "baseline" else "-"}
            axes.errorbar(list(points), means, sds, linewidth=2, elinewidth=1, **looks)
        axes.set(xlabel="correspondence", xlim=(-0.03, 1.03), ylim=(0, 1.03 * reach))

    return Panel(f"Top-1 with {setup} by correspondence", 310, 236, draw, f"{setup}: top-1 (%)")


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    everything = filled({float(dial): merged(folders.split(",")) for dial, folders in named.items()})
    print(markdown(everything))
    save(plot(everything), Path("correspondence.png"), ".png")
