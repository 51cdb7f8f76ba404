"""The page of `ccl report html`: time and memory to write it, its size, and how soon a browser shows it.

    python benchmarks/page.py RUN [--runs 50] [--classes 5000] [--rounds 3]

RUN is a trained and evaluated run, for example one of `ccl demo`. Of its files two studies are made: many
runs, copies of it with other seeds and figures; and four runs with many classes, two test and four training
videos each, whose recognition is evaluated as by `ccl eval`, from made-up scores. Each page is written once
before it is timed, so that the pictures' videos have been scored. Times to write it are of a whole process,
imports included; its t-SNE has a process of its own. The browser is Chromium, started anew each time; its
times begin with the navigation.
"""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from measuring import arguments, figure, heading, in_process, median, megabytes, peak_memory, table

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.report.page.page import write_page
from ccl_cli.training.run.folder import CELL, MANIFEST, METRICS, RECIPE, SUMMARY, RunFolder

ROWS = [("baseline", ""), *product(("fitnet", "crd", "ccl"), ("A", "I", "AI"))]
VIDEOS = {"test": 2, "train": 4}  # of each class
WIDTH = 512  # of features
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Two frames after everything has been loaded: the first has then been shown.
SCRIPT = """<script>
addEventListener("load", () => requestAnimationFrame(() => requestAnimationFrame(() => {
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  console.log("PAGE " + JSON.stringify({paint: paint?.startTime ?? null, whole: performance.now()}));
})));
</script>"""


def copy_run(run: Path, root: Path, method: str, setup: str, seed: int, rng: random.Random) -> Path:
    """A copy with another label and seed, and figures that differ."""
    folder = root / f"{method}-{setup}-s{seed}"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("state", ".lock"))
    recipe = (folder / RECIPE).read_text()
    (folder / RECIPE).write_text(re.sub(r"(?m)^  seed: \d+$", f"  seed: {seed}", recipe))
    label = {"method": method, "setup": setup, "seed": seed, "table": "main", "phase": "final"}
    (folder / CELL).write_text(json.dumps(label))
    change(
        folder / SUMMARY,
        lambda summary: {**summary, "seed": seed, "evaluation": varied(summary["evaluation"], rng)},
    )
    for path in folder.glob("eval-*.json"):
        change(path, lambda record: {**record, "recognition": varied(record["recognition"], rng)})
    lines = map(json.loads, (run / METRICS).read_text().splitlines())
    noisy = [
        {
            key: value * rng.uniform(0.9, 1.1) if key in ("loss", "ce", "accuracy") else value
            for key, value in line.items()
        }
        for line in lines
    ]
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in noisy))
    return folder


def change(path: Path, new: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(new(json.loads(path.read_text()))))


def varied(record: Any, rng: random.Random) -> Any:
    """All percentages in it, each a few points away."""
    if isinstance(record, dict):
        return {key: varied(value, rng) for key, value in record.items()}
    return min(100.0, max(0.0, record + rng.gauss(0, 3))) if isinstance(record, float) else record


def many_runs(run: Path, root: Path, count: int) -> None:
    rng = random.Random(0)
    for number in range(count):
        seed, row = divmod(number, len(ROWS))
        copy_run(run, root, *ROWS[row], seed, rng)


def many_classes(run: Path, root: Path, count: int) -> None:
    """The baseline and ccl over two seeds, each with scores of its own."""
    import torch  # here, because the process that writes the page must not import it

    manifest = wide_manifest(Manifest.load(run / MANIFEST), count)
    torch.manual_seed(0)
    for (method, setup), seed in product((ROWS[0], ROWS[-1]), (0, 1)):
        folder = RunFolder(copy_run(run, root, method, setup, seed, random.Random(seed)))
        evaluate(folder, manifest)
        widen_correspondence(folder.path, manifest)


def wide_manifest(own: Manifest, count: int) -> Manifest:
    """As many classes as asked for; the videos are the run's own, again and again."""
    classes = tuple(f"class {number:05}" for number in range(count))
    videos = [
        Video(f"{split}/{name}/{place}", video.path, label, split)
        for split, each in VIDEOS.items()
        for (label, name), (place, video) in zip(
            ((label, name) for label, name in enumerate(classes) for _ in range(each)),
            enumerate(cycle(own.split(split))),
            strict=False,
        )
    ]
    return Manifest(own.name, classes, tuple(videos))


def evaluate(run: RunFolder, manifest: Manifest) -> None:
    """Leave what `ccl eval` leaves, of made-up scores and features: about half of the videos are right."""
    import torch

    from ccl_cli.evaluation.metrics import recognition
    from ccl_cli.evaluation.prediction_cache import cache_predictions
    from ccl_cli.evaluation.predictor import SplitPredictions

    manifest.save(run.path / MANIFEST)
    centres = torch.randn(len(manifest.classes), WIDTH)
    splits = {}
    for split in VIDEOS:
        labels = torch.tensor([video.target for video in manifest.split(split)])
        scores = torch.rand(len(labels), len(manifest.classes) if split == "test" else 0)
        if split == "test":
            scores[torch.arange(len(labels)), labels] += torch.randint(2, labels.shape)
        features = centres[labels] + 2 * torch.randn(len(labels), WIDTH)
        splits[split] = SplitPredictions(scores, features, labels, {})
        cache_predictions(run, manifest, split, splits[split])
    figures = {"recognition": recognition(splits["test"].scores, splits["test"].labels, manifest.classes)}
    name, data = f"{manifest.name}-test", {"name": manifest.name, "manifest": manifest.hash, "split": "test"}
    record = {"data": data, "selection": "last", "counts": {}, **figures}
    (run.path / f"eval-{name}.json").write_text(json.dumps(record, indent=2))
    totals = {task: {k: v for k, v in each.items() if k != "per_class"} for task, each in figures.items()}
    change(
        run.path / SUMMARY,
        lambda summary: {
            **summary,
            "data": {**summary["data"], "manifest": manifest.hash},
            "evaluation": {name: totals},
        },
    )


def widen_correspondence(run: Path, manifest: Manifest) -> None:
    """What was measured of the teachers, with the rows of its classes again and again."""

    def widened(record: dict[str, Any]) -> dict[str, Any]:
        rows = islice(cycle(record["probe"]["per_class"].values()), len(manifest.classes))
        per_class = dict(zip(manifest.classes, rows, strict=True))
        verdicts = {
            verdict: [name for name, row in per_class.items() if row["verdict"] == verdict]
            for verdict in record["probe"]["verdicts"]
        }
        probe = {**record["probe"], "per_class": per_class, "verdicts": verdicts}
        return {**record, "key": {**record["key"], "manifest": manifest.hash}, "probe": probe}

    for path in run.glob("correspondence-*.json"):
        change(path, widened)


def write(root: Path) -> dict[str, float]:
    """Write the page beside the runs."""
    path = write_page(root, output=root / "report.html")
    done = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = time.process_time() + done.ru_utime + done.ru_stime
    torch = "torch" in sys.modules
    record = {"processor": processor, "peak": peak_memory(), "child": 1024 * done.ru_maxrss, "torch": torch}
    return {**record, "bytes": path.stat().st_size}


def show(page: Path, program: str, attempts: int = 5) -> dict[str, float]:
    """Milliseconds until the browser has painted something, and until two frames after it has everything."""
    text = re.sub(r"<meta http-equiv=.*?>", "", page.read_text(encoding="utf-8"), count=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(text.replace("</body>", f"{SCRIPT}</body>"), encoding="utf-8")
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]
        command += ["--enable-logging=stderr", f"--user-data-dir={folder}/profile"]
        command += [f"--screenshot={folder}/page.png", path.as_uri()]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"PAGE (\{.*?\})", said)
    if not found:
        raise SystemExit(f"'{program}' has not shown the page:\n{said}")
    times: dict[str, float] = json.loads(found[1])
    if None in times.values() and attempts > 1:  # the browser has not noted its first paint
        return show(page, program, attempts - 1)
    return times


def measure(root: Path, rounds: int) -> list[str]:
    """A row of the table."""
    in_process(write, root)
    written, seconds = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        written.append(in_process(write, root))
        seconds.append(time.perf_counter() - begin)
    if any(each["torch"] for each in written):
        raise SystemExit("A page of cached results has imported torch.")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    shown = [show(root / "report.html", program) for _ in range(rounds)] if program else []
    browser = [
        figure(median(each[name] for each in shown) / 1000) if shown else "-" for name in ("paint", "whole")
    ]
    processor = figure(median(each["processor"] for each in written))
    memory = [megabytes(max(each[name] for each in written)) for name in ("peak", "child")]
    return [figure(median(seconds)), processor, *memory, megabytes(written[0]["bytes"]), *browser]


def main() -> None:
    options = arguments(__doc__, ("run", {"type": Path}), runs=50, classes=5000, rounds=3)
    heading("The page of ccl report html", "torch", "matplotlib", "scikit-learn")
    studies = {
        f"{options.runs} runs": lambda root: many_runs(options.run, root, options.runs),
        f"{options.classes:,} classes": lambda root: many_classes(options.run, root, options.classes),
    }
    rows = []
    for name, make in studies.items():
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            rows.append([name, *measure(Path(folder), options.rounds)])
    print(f"Median of {options.rounds}; of the memory, the most.\n")
    columns = ["study", "written in, s", "processor s", "memory at most, MB", "of its t-SNE, MB"]
    table([*columns, "page, MB", "first paint, s", "whole page shown, s"], rows)


if __name__ == "__main__":
    main()
