"""How the cost of a step grows: with the batch, the teachers, the classes; with the clips; over processes.

    python benchmarks/growth.py [--rounds 7] [--plot growth.png]

Steps are those of the product's trainer, with a small student (`r2plus1d_tiny`, 8x32x32) so that what CCL
adds can be seen beside it, and teachers' embeddings as 512-d vectors. Each quantity is changed alone, from 16
clips, two teachers and 51 classes, in turns. What a data set costs before the first step is a manifest read,
its permutation drawn, and a batch's rows of cached embeddings found. Processes are whole runs of `ccl train`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from measuring import alternately, arguments, ccl, clock, figure, heading, median, table, unit
from step import WIDTH, precomputed, trainer_step

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.report.figures.panel import Panel, in_rows, logarithmic, save
from ccl_cli.report.figures.style import LIGHT

CLIP = Clip(frames=8, size=32)
USUAL = {"batch": 16, "teachers": 2, "classes": 51}
GROWN = {"batch": (4, 16, 64, 256), "teachers": (0, 1, 2, 4, 8), "classes": (10, 51, 400, 5000)}
CLIPS = (1_000, 10_000, 100_000, 1_000_000)
PROCESSES = (1, 2)


def step(batch: int, teachers: int, classes: int) -> Callable[[], None]:
    """One step of the trainer."""
    torch.manual_seed(0)
    names = [f"m{number}:precomputed" for number in range(teachers)]
    everyone, labels = torch.ones(batch, dtype=torch.bool), torch.randint(classes, (batch,))
    inputs = {name: TeacherInput(torch.randn(batch, WIDTH).relu(), everyone) for name in names}
    video = torch.randint(256, (batch, 3, CLIP.frames, CLIP.size, CLIP.size), dtype=torch.uint8)
    given = Batch(video, labels, torch.arange(batch), inputs, 0)
    vectors = {name: precomputed(name.partition(":")[0]) for name in names}
    return trainer_step(
        given, CLIP, vectors, "r2plus1d_tiny", {"ccl" if teachers else "baseline": {}}, classes
    )


def steps(rounds: int) -> dict[str, dict[int, float]]:
    """Milliseconds by what was changed and to what."""
    found: dict[str, dict[int, float]] = {}
    for name, values in GROWN.items():
        works = {str(value): step(**USUAL | {name: value}) for value in values}
        found[name] = {int(at): 1000 * median(each) for at, each in alternately(works, rounds).items()}
    return found


def clips(rounds: int, folder: Path) -> dict[int, float]:
    """Milliseconds from a manifest on disk to the first batch's rows and embeddings."""
    works = {}
    for count in CLIPS:
        videos = (Video(f"c/{row:09}", Path(f"/v/{row:09}.mp4"), row % 51, "train") for row in range(count))
        path = folder / f"{count}.jsonl"
        Manifest("made-up", tuple(map(str, range(51))), tuple(videos)).save(path)
        embeddings = np.lib.format.open_memmap(folder / f"{count}.npy", "w+", np.float32, (count, 1, 64))
        works[str(count)] = first_batch(path, embeddings)
    return {int(at): 1000 * median(each) for at, each in alternately(works, max(1, rounds // 3)).items()}


def first_batch(path: Path, embeddings: np.ndarray) -> Callable[[], None]:
    def work() -> None:
        manifest = Manifest.load(path)
        draws = next(iter(EpochSampler(len(manifest.videos), batch_size=16, epochs=1)))
        np.array(embeddings[[draw.row for draw in draws], 0])

    return work


def processes(folder: Path) -> dict[int, float]:
    """Clips per second of `ccl train`, by the number of processes."""
    found = {}
    for count in PROCESSES:
        run = folder / f"run{count}"
        given = ["--recipe", "smoke", "--output", run, "--num-processes", count, "--epochs", 12]
        ccl("train", *given, "--set", "train.log_every=4")
        lines = (run / "metrics.jsonl").read_text().splitlines()
        found[count] = median(json.loads(line)["clips_per_s"] for line in lines[2:])
    return found


def panel(name: str, points: Mapping[int, float], unit_: str) -> Panel:
    wide, steep = (min(values) > 0 and max(values) > 20 * min(values) for values in (points, points.values()))

    def draw(axes):
        axes.plot(points.keys(), points.values(), color=LIGHT["s0"], linewidth=2)
        axes.set_xlabel(name)
        if wide:
            axes.set_xscale("log")
        if steep:
            logarithmic(axes, min(points.values()), max(points.values()))
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(list(points), [f"{at:,}" for at in points])
        axes.minorticks_off()

    return Panel(f"{unit_} by {name}", 260, 186, draw, f"{unit_} by {name}")


def main() -> None:
    options = arguments(__doc__, rounds=7, plot="")
    heading("Growth", "torch", "accelerate")
    begin, panels = clock(), []
    for name, points in steps(options.rounds).items():
        usual = points[USUAL[name]]
        rows = [[at, figure(value), f"{value / usual:.2f}"] for at, value in points.items()]
        table([name, f"one step, thousandths of {unit()}", f"of that with {USUAL[name]}"], rows)
        panels.append(panel(name, points, "ms for a step"))
    with tempfile.TemporaryDirectory() as scratch:
        points = clips(options.rounds, Path(scratch))
        rows = [[f"{at:,}", figure(value), figure(1e6 * value / 1000 / at)] for at, value in points.items()]
        table(
            ["clips", f"before the first step, thousandths of {unit()}", "microseconds for each clip"], rows
        )
        panels.append(panel("clips", points, "ms before the first step"))
        rates = processes(Path(scratch))
    rows = [[at, figure(value), f"{value / rates[1]:.2f}"] for at, value in rates.items()]
    table(["processes", "clips per second", "of that with one"], rows)
    panels.append(panel("processes", rates, "clips per second"))
    print(f"{clock() - begin:.0f} {unit()} in all; embeddings 512-d, student r2plus1d_tiny at 8x32x32.\n")
    if options.plot:
        save(in_rows(panels, 3), Path(options.plot), Path(options.plot).suffix)


if __name__ == "__main__":
    main()
