"""The study behind `ccl demo`: does distilling sound and pictures help, and does it take composition?

    python benchmarks/correspondence.py run       # every benchmark of the study, one after the other; hours
    python benchmarks/correspondence.py report    # benchmarks/results/correspondence.* and docs/images/
    python benchmarks/correspondence.py world     # docs/images/world.png: clips and their spectrograms

`run` goes on where it was interrupted; `report` takes what has ended. The weights stand in
recipes/correspondence.yaml, with the command that chose them in a world that the study does not use. A
difference is between runs of one seed in one world; its interval is Student's t at 95 %, not corrected for
the number of comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measuring import ccl, table_text
from studies import METRICS, Values, command, difference, gains, spread

from ccl_cli.data.manifest import Video
from ccl_cli.data.sources import load_data
from ccl_cli.data.sources.world import RATE
from ccl_cli.data.video.reader import read_frames
from ccl_cli.data.video.sound import read_audio
from ccl_cli.report.records.comparison import t_interval
from ccl_cli.report.records.runs import read_runs
from ccl_cli.utils.paths import runs_dir

WORLDS, DIAL = (3, 4), (1.0, 0.75, 0.5, 0.0)
# Rows at a correspondence below 1: the others do not hear the difference.
CCL = ["--method", "ccl", "--setup", "A", "--setup", "AI"]
HEARING = ["--method", "fitnet", "--method", "crd", *CCL]
RESULTS, IMAGE = Path("benchmarks/results"), Path("docs/images/correspondence.png")
COLOURS = {"fitnet": "#d55e00", "crd": "#009e73", "ccl": "#0072b2"}
SETUPS = {"A": "audio", "I": "image", "AI": "both"}
NAMES = {
    "fitnet": "FitNet",
    "crd": "CRD",
    "ccl": "CCL",
    "ccl w/o composition": "without composition",
    "ccl w L_ct": "InfoNCE",
    "ccl w/o L_nce": "without contrastive loss",
    "ccl w/o L_jsd": "without divergence",
    "ccl joint": "joint gradient",
    "ccl official": "authors' losses",
}

Key = tuple[int, int]  # world, seed


class Cell(NamedTuple):
    """One row of the study at one position of the dial."""

    method: str
    setup: str
    correspondence: float


Figures = dict[str, dict[Cell, Values]]  # by metric


def name(world: int, correspondence: float) -> str:
    """Of one benchmark's folder."""
    return f"correspondence-world{world}-{correspondence:g}"


def run() -> None:
    """Every benchmark, what matters most first; what does not depend on sound runs once in each world."""
    below = [correspondence for correspondence in DIAL if correspondence < 1]
    stages = [(1.0, []), *((each, CCL) for each in below), *((each, HEARING) for each in below)]
    for (correspondence, rows), world in product(stages, WORLDS):
        data = f"synthetic?seed={world}&correspondence={correspondence:g}"
        ccl(
            "bench",
            "correspondence",
            "--jobs",
            2,
            "--data",
            data,
            "--name",
            name(world, correspondence),
            *rows,
        )


def read() -> list[dict[str, object]]:
    """One record for each run that has ended."""
    records: list[dict[str, object]] = []
    for world, correspondence in product(WORLDS, DIAL):
        folder = runs_dir() / name(world, correspondence)
        for each in read_runs([folder]).evaluated if any(folder.glob("*/summary.json")) else ():
            figures = {metric: value for (_, metric), value in each.metrics.items() if metric in METRICS}
            cell = {"method": each.method, "setup": each.setup, "seed": each.seed}
            records.append({"world": world, "correspondence": correspondence, **cell, **figures})
    return records


def arranged(records: list[dict[str, object]]) -> Figures:
    """Records by metric and cell; what does not hear stands at every correspondence."""
    found: Figures = {metric: {} for metric in METRICS}
    for record, metric in product(records, METRICS):
        deaf = record["setup"] in ("", "I")
        for correspondence in DIAL if deaf else (record["correspondence"],):
            cell = Cell(record["method"], record["setup"], correspondence)
            found[metric].setdefault(cell, {})[record["world"], record["seed"]] = record[metric]
    return found


def of_world(values: Values, world: int) -> Values:
    """Those of one world."""
    return {key: value for key, value in values.items() if key[0] == world}


def table(figures: Figures, reference: Callable[[Cell], Cell], shown: list[Cell]) -> str:
    """Rows of cells, each with its difference from another one, by metric and world and over both worlds."""
    header = ["method", "teachers", "correspondence", "metric"]
    header += [part for world in WORLDS for part in (f"world {world}", "difference")] + ["both worlds"]
    lines = []
    for cell, metric in product(shown, METRICS):
        values, other = figures[metric][cell], figures[metric].get(reference(cell), {})
        row = [cell.method, cell.setup or "-", f"{cell.correspondence:g}", METRICS[metric]]
        for world in WORLDS:
            ours = of_world(values, world)
            row += [spread(ours) if ours else "", difference(ours, of_world(other, world))]
        lines.append([*row, difference(values, other)])
    return table_text(header, lines)


def markdown(figures: Figures, records: list[dict[str, object]]) -> str:
    """Every table of the study."""
    cells = sorted(figures["top1"], key=lambda cell: (-cell.correspondence, cell.setup, cell.method))
    whole = [cell for cell in cells if cell.correspondence == 1]
    main = [cell for cell in whole if cell.method in COLOURS]
    ours = [cell for cell in whole if cell.method.startswith("ccl ")]
    dial = [cell for cell in cells if cell.correspondence < 1 and cell.setup in ("A", "AI")]
    parts = [
        "# The correspondence study\n\n`python benchmarks/correspondence.py run`, then `report`; "
        f"{len(records)} runs. Mean ± standard deviation over seeds in percent; differences in points, "
        "seed by seed, with 95 % intervals.",
        "## Over the baseline, every sound right\n\n"
        + table(figures, lambda cell: Cell("baseline", "", 1.0), [c for c in main if c.setup] or main),
        "The baseline:\n\n" + table(figures, lambda cell: cell, [Cell("baseline", "", 1.0)]),
        "## Ablations and gradient routes: full CCL minus each\n\n" + ablations(figures, ours),
    ]
    if dial:
        along = table(figures, lambda cell: Cell("baseline", "", cell.correspondence), dial)
        parts.append("## Over the baseline, along the dial\n\n" + along)
    return "\n\n".join(parts) + "\n"


def ablations(figures: Figures, cells: list[Cell]) -> str:
    """What full CCL has more than each ablation."""
    first, second = WORLDS
    columns = ("ablation", "metric", "figure", f"CCL minus it, world {first}", f"world {second}")
    lines = []
    for cell, metric in product(cells, METRICS):
        full, less = figures[metric][Cell("ccl", cell.setup, 1.0)], figures[metric][cell]
        apart = [difference(of_world(full, world), of_world(less, world)) for world in WORLDS]
        lines.append([cell.method, METRICS[metric], spread(less), *apart, difference(full, less)])
    return table_text([*columns, "both worlds"], lines)


def plot(figures: Figures) -> Figure:
    """Top-1 over the baseline: a dot for each pair of runs, the mean and its interval; and along the dial."""
    top1 = figures["top1"]
    baseline = top1[Cell("baseline", "", 1.0)]
    figure = Figure(figsize=(10, 4.6), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    methods = [*NAMES]
    rows = [cell for cell in top1 if cell.correspondence == 1 and cell.method in NAMES]
    rows.sort(
        key=lambda cell: (cell.method not in COLOURS, len(cell.setup), cell.setup, methods.index(cell.method))
    )
    for place, cell in enumerate(rows):
        differences = gains(top1[cell], baseline)
        across = -place + np.random.default_rng(place).uniform(-0.15, 0.15, len(differences))
        colour = COLOURS[cell.method.split()[0]]
        left.plot(differences, across, "o", ms=3, color=colour, alpha=0.4)
        if interval := t_interval(differences):
            left.plot(interval, [-place, -place], color=colour, lw=2)
        left.plot(np.mean(differences), -place, "o", ms=7, color=colour)
    labels = [f"{NAMES[cell.method]}, {SETUPS[cell.setup]}" for cell in rows]
    left.set_yticks([-place for place in range(len(rows))], labels, fontsize=8)
    left.axvline(0, color="#999999", lw=0.8, ls="--")
    left.set_xlabel("top-1 over the baseline, points")
    lines(right, top1, baseline)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def lines(axes: Axes, top1: dict[Cell, Values], baseline: Values) -> None:
    """Means and intervals along the dial, where both worlds have run."""
    rows = (("ccl", "A", "--"), ("ccl", "AI", "-"), ("fitnet", "AI", "-"), ("crd", "AI", "-"))
    for shift, (method, setup, style) in enumerate(rows):
        cells = [Cell(method, setup, at) for at in DIAL]
        whole = [cell for cell in cells if {world for world, _ in top1.get(cell, ())} == set(WORLDS)]
        differences = [gains(top1[cell], baseline) for cell in whole]
        at = [cell.correspondence + 0.012 * shift for cell in whole]
        colour, label = COLOURS[method], f"{NAMES[method]}, {SETUPS[setup]}"
        axes.plot(at, [np.mean(each) for each in differences], style, color=colour, label=label)
        for x, each in zip(at, differences, strict=True):
            axes.plot([x, x], t_interval(each) or (np.nan, np.nan), color=colour, lw=2)
            axes.plot(x, np.mean(each), "o", ms=6, color=colour)
    axes.axhline(0, color="#999999", lw=0.8, ls="--")
    axes.set(xlabel="how often sound fits the motion", ylabel="top-1 over the baseline, points")
    axes.legend(fontsize=8, frameon=False, loc="center left")


def report() -> None:
    """Everything that the runs say, written where the documentation reads it."""
    records = read()
    figures = arranged(records)
    (RESULTS / "correspondence.json").write_text(json.dumps(records, indent=0) + "\n")
    (RESULTS / "correspondence.md").write_text(markdown(figures, records))
    plot(figures).savefig(IMAGE)


def sound(video: Video) -> np.ndarray:
    """The video's samples; zeros where it has none."""
    samples = read_audio(video.path, centre=0.5, seconds=1, rate=RATE).samples
    return np.zeros(RATE, np.float32) if samples is None else np.asarray(samples)


def world(frames: int = 4) -> None:
    """A few clips: every other frame, and the spectrogram of the sound."""
    manifest = load_data("synthetic")
    train = manifest.split("train")
    # Six of the twelve actions, and another digit in each.
    of_action = ([video for video in train if video.label == label] for label in range(0, 12, 2))
    heard = [
        [(video, samples) for video in videos if (samples := sound(video)).any()] for videos in of_action
    ]
    shown = [clips[number] for number, clips in enumerate(heard)]
    figure = Figure(figsize=(9, 5.2), layout="constrained", dpi=150)
    grid = figure.subplots(3, 2 * (frames + 2), width_ratios=[*[1] * frames, 2.2, 0.2] * 2)
    for number, (video, samples) in enumerate(shown):
        row, start = number % 3, number // 3 * (frames + 2)
        images = read_frames(video.path, 0, 2 * frames).frames[::2]
        for axes, image in zip(grid[row, start : start + frames], images, strict=True):
            axes.imshow(image.numpy(), interpolation="nearest")
        grid[row, start].set_title(manifest.classes[video.label], fontsize=9, loc="left")
        spectrogram = grid[row, start + frames]
        spectrogram.specgram(samples, NFFT=512, noverlap=384, Fs=RATE, cmap="magma", vmin=-120)
        spectrogram.set_title("sound", fontsize=9, loc="left")
        grid[row, start + frames + 1].set_visible(False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    figure.savefig(IMAGE.with_name("world.png"))


if __name__ == "__main__":
    command(run=run, report=report, world=world)
