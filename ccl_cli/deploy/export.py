"""Export of students to files that run without ccl, each verified against torch."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccl_cli import __version__
from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import parse_model
from ccl_cli.deploy.example_clips import Examples, find_examples, some_clips
from ccl_cli.deploy.onnx import (
    BATCH,
    INPUT,
    OUTPUTS,
    TRACED,
    Deployed,
    Network,
    need_onnx,
    open_onnx,
    open_torch,
    trace,
    write_onnx,
    write_torch,
)
from ccl_cli.deploy.preprocessing import describe_preprocessing
from ccl_cli.deploy.quantize import CALIBRATION, quantize, top1
from ccl_cli.errors import SystemSetupError, UsageError
from ccl_cli.evaluation.model import load_student
from ccl_cli.training.run.artefact import Artefact
from ccl_cli.utils.files import atomic_folder, write_text

TORCH, EXPORTED, ONNX, INT8 = "torch", "torch.export", "onnxruntime", "onnxruntime int8"
FILES = {EXPORTED: "model.pt2", ONNX: "model.onnx", INT8: "model.int8.onnx"}
_BATCHES = (1, TRACED + 1)  # batch sizes for the comparison, different from the traced one
_ROUNDS, _PATIENCE = 15, 20.0  # timed calls per network, and time limit in seconds
_log = logging.getLogger("ccl")


def export_model(
    run: Path | None,
    output: Path,
    *,
    formats: Collection[str] = ("onnx", "torch"),
    int8: bool = False,
    tolerance: float = 1e-4,
    clips: Sequence[Path] = (),
) -> dict[str, Any]:
    """Export a student, compare each file with torch on real clips, and measure latency.

    Args:
        run: Run folder or model file. Default: the newest run.
        output: New folder for the files.
        formats: "onnx", "torch" or both.
        int8: Also write an int8 ONNX file, and measure its accuracy.
        tolerance: Maximum difference from torch, relative to the largest output value.
        clips: Videos to compare on. Default: the run's test videos.

    Returns:
        The contents of ``export.json``: preprocessing, comparison, sizes and times.

    Raises:
        UsageError: the folder is not empty, int8 was requested without ONNX, or the student has no classes.
        PluginError: the student cannot be exported.
        SystemSetupError: a package is missing, or a file does not match torch; all files are removed.
    """
    if int8 and "onnx" not in formats:
        raise UsageError("--int8 requires the ONNX format.", "Add --format onnx or --format both.")
    if "onnx" in formats:
        need_onnx()
    model = load_student(run)
    model.need_classes()
    artefact, clip = model.artefact, model.artefact.recipe.clip
    examples = find_examples(model, clips)
    with atomic_folder(output) as folder:
        record = describe_use(artefact)
        networks = _write(artefact, folder, formats, record)
        sample = some_clips(examples.check, clip, sum(_BATCHES))
        result = record | {"clips": examples.what, "batches": _BATCHES, "tolerance": tolerance}
        result["difference"] = _compare(networks, sample)
        _refuse_beyond(tolerance, result["difference"], examples.what)
        if int8:
            result["int8"], networks[INT8] = _add_int8(folder, networks[ONNX], examples, clip)
            result["difference"] |= _compare({name: networks[name] for name in (TORCH, INT8)}, sample)
        result["speed"] = _times(networks, sample[:1])
        result["bytes"] = {name: (folder / FILES[name]).stat().st_size for name in networks if name != TORCH}
        write_text(folder / "export.json", json.dumps(result, indent=2) + "\n")
    return result


def describe_use(artefact: Artefact) -> dict[str, Any]:
    """Describe input, outputs, sampling and classes for users without ccl."""
    clip, student = artefact.recipe.clip, artefact.student
    return {
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": [BATCH, 3, clip.frames, clip.size, clip.size],
            "axes": "clip, colour (red, green, blue), frame, row, column",
            "values": "0 to 255; normalisation is inside the graph",
        },
        "outputs": {"logits": [BATCH, student.num_classes], "feature": [BATCH, student.feature_dim]},
        "classes": artefact.classes,
        "preprocessing": describe_preprocessing(artefact.recipe),
        "model": {
            "student": parse_model(artefact.recipe.student).name,  # without the path of initial weights
            "recipe": artefact.recipe.hash(),
            "manifest": artefact.header.get("manifest"),
            "step": artefact.header.get("step"),
        },
        "versions": {"ccl": __version__, "torch": version("torch")},
    }


def _write(
    artefact: Artefact, folder: Path, formats: Collection[str], record: dict[str, Any]
) -> dict[str, Network]:
    """Write the files with a record for their users.

    Returns:
        The original network, and those of the files: the comparison uses what a user gets.
    """
    name, clip = artefact.recipe.student, artefact.recipe.clip
    deployed = Deployed(artefact.student, clip)
    networks: dict[str, Network] = {TORCH: deployed}
    _log.info("Tracing %s.", name)
    program = trace(deployed, clip, name)
    if "torch" in formats:
        write_torch(program, folder / FILES[EXPORTED], record)
        networks[EXPORTED] = open_torch(folder / FILES[EXPORTED])
    if "onnx" in formats:
        _log.info("Converting to ONNX.")
        record["versions"] |= {each: version(each) for each in ("onnx", "onnxscript", "onnxruntime")}
        write_onnx(program, folder / FILES[ONNX], record, name)
        networks[ONNX] = open_onnx(folder / FILES[ONNX])
    return networks


def _compare(networks: Mapping[str, Network], clips: Tensor) -> dict[str, dict[str, dict[str, float]]]:
    """Compute the maximum difference of each network's outputs from torch, and torch's largest value."""
    outputs = {name: _outputs(run, clips) for name, run in networks.items()}
    expected = outputs.pop(TORCH)
    return {
        name: {
            key: {
                "max_abs": float((values[key] - expected[key]).abs().max()),
                "largest": float(expected[key].abs().max()),
            }
            for key in OUTPUTS
        }
        for name, values in outputs.items()
    }


def _outputs(run: Network, clips: Tensor) -> dict[str, Tensor]:
    """Run all clips in batches of different sizes."""
    batches = [run(batch) for batch in torch.split(clips, list(_BATCHES))]
    return {key: torch.cat([batch[key] for batch in batches]) for key in OUTPUTS}


def _refuse_beyond(tolerance: float, differences: Mapping[str, Any], what: str) -> None:
    for name, by_output in differences.items():
        for key, difference in by_output.items():
            if not difference["max_abs"] <= tolerance * difference["largest"]:  # also false for NaN
                raise SystemSetupError(
                    f"{FILES[name]} does not match torch: on {what}, '{key}' differs by up to "
                    f"{difference['max_abs']:.1e}. The largest value is {difference['largest']:.1e}, and "
                    f"the relative tolerance is {tolerance:g}.",
                    "Nothing was written. Increase --tolerance to accept this difference.",
                )


def _add_int8(
    folder: Path, float32: Network, examples: Examples, clip: Clip
) -> tuple[dict[str, Any], Network]:
    """Write and load the int8 file, and measure its accuracy."""
    count = min(CALIBRATION, len(examples.calibration))
    _log.info("Quantising with %d clips.", count)
    quantize(folder / FILES[ONNX], folder / FILES[INT8], some_clips(examples.calibration, clip, count))
    network = open_onnx(folder / FILES[INT8])
    both = {ONNX: float32, INT8: network}
    accuracy = top1(both, examples.labelled, clip) if examples.labelled else None
    return {"calibration_clips": count, "accuracy": accuracy}, network


def _times(networks: Mapping[str, Network], clip: Tensor) -> dict[str, Any]:
    """Measure the median latency of one clip in milliseconds, with interleaved networks."""
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    begin = time.perf_counter()
    for number in range(_ROUNDS + 1):
        for name, run in networks.items():
            start = time.perf_counter()
            run(clip)
            seconds[name].append(time.perf_counter() - start)
        if number and time.perf_counter() - begin > _PATIENCE:
            break
    # The first round is a warm-up.
    medians = {name: 1000 * statistics.median(times[1:]) for name, times in seconds.items()}
    return {"ms": medians, "rounds": number, "threads": torch.get_num_threads(), "batch": 1}
