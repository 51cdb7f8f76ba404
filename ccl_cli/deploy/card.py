"""Model cards: network, data, teachers, results and limitations of a published model."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from ccl_cli import registry
from ccl_cli.config.load import to_yaml
from ccl_cli.config.spec import parse_model
from ccl_cli.deploy.preprocessing import describe_preprocessing
from ccl_cli.errors import CclError, UsageError
from ccl_cli.report.records.run import METRICS
from ccl_cli.report.records.runs import read_runs
from ccl_cli.report.tables.markdown import escape_markdown, markdown_table
from ccl_cli.training.run.artefact import Artefact, load_model
from ccl_cli.training.run.folder import CELL, RunFolder, locate_model, read_json
from ccl_cli.utils.text import one_line

CARD = "README.md"
_UNKNOWN = "unknown"  # also the Hub's identifier of an unknown licence
_MORE_SIGNS = re.compile(r"([&~$])")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
# The Hub has no task type for video retrieval.
_TASKS: dict[str, dict[str, Any]] = {
    "recognition": {"task_type": "video-classification"},
    "retrieval": {"task_type": "other", "task_name": "Video retrieval"},
}
_TAGS = ["video", "action-recognition", "video-retrieval", "knowledge-distillation", "ccl"]
_ALL_BUT_SEED = ["data", "metric", "method", "setup", "settings", "manifest"]


class Result(NamedTuple):
    """A metric on a data set, in percent.

    ``seeds`` are the results of all runs of the benchmark that differ only in the seed, including this one.
    """

    data: str
    metric: str
    value: float
    seeds: tuple[float, ...]


def card(run: Path | None, *, licence: str = _UNKNOWN, repository: str = "OWNER/NAME") -> tuple[Path, str]:
    """Create the model card of a run. Facts that were not recorded are omitted or listed as unknown.

    Args:
        run: Run folder or model file. Default: the newest run.
        licence: Identifier of the model's licence on the Hub, such as ``apache-2.0``.
        repository: Repository of the model, for the download command in the card.

    Returns:
        The model's folder, and the card as Markdown with the metadata block of the Hugging Face Hub.

    Raises:
        UsageError: the licence identifier is invalid.
        DataError: the run does not exist or has no model.
    """
    if not _LICENCE.fullmatch(licence):
        raise UsageError(
            f"'{licence}' is not a licence identifier of the Hub.",
            "Use lowercase identifiers such as apache-2.0, mit, cc-by-4.0, other or unknown.",
        )
    from huggingface_hub import ModelCard

    folder, path = locate_model(run)
    artefact, summary = load_model(path), folder.summary if folder else {}
    measured, failed = results(folder) if folder else ([], 0)
    recipe = to_yaml(artefact.recipe).rstrip()
    content = ModelCard.from_template(
        _card_data(artefact, measured, licence),
        template_str=(files("ccl_cli.deploy") / "card.md").read_text(encoding="utf-8"),
        text=_text,
        code=_code,
        artefact=artefact,
        header=artefact.header,
        recipe=artefact.recipe,
        preprocessing=describe_preprocessing(artefact.recipe),
        summary=summary,
        parameters=sum(each.numel() for each in artefact.student.parameters()),
        repository=repository,
        results=_result_table(measured),
        seeds=max((len(each.seeds) for each in measured), default=0),
        failed=failed,
        evaluated=_evaluated(folder, measured) if folder else {},
        without_sound=_without_sound(summary.get("data", {}).get("modalities")),
        teachers=[(spec, *_weights(spec, summary)) for spec in artefact.recipe.teachers],
        licence=licence,
        recipe_yaml=recipe,
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0)),
    )
    return path.parent, f"{content}\n"


def results(folder: RunFolder) -> tuple[list[Result], int]:
    """Collect the results of a run on test splits, and the number of failed seeds of its benchmark."""
    try:
        own = together = read_runs([folder.path])
    except CclError:  # not evaluated yet, or unfinished
        return [], 0
    if (folder.path / CELL).is_file():
        together = read_runs([folder.path.parent])
    run = own.evaluated[0]
    failed = sum((each.method, each.setup) == (run.method, run.setup) for each in together.failed)
    same = together.frame.dropna(subset="value").groupby(_ALL_BUT_SEED)["value"].agg(tuple)
    rows = own.frame.set_index(_ALL_BUT_SEED)["value"]
    return [Result(key[0], key[1], value, same[key]) for key, value in rows.items()], failed


def _card_data(artefact: Artefact, measured: Sequence[Result], licence: str) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    evaluated = [
        EvalResult(
            **_TASKS[METRICS[each.metric][0]],
            dataset_type=one_line(each.data),
            dataset_name=one_line(each.data),
            dataset_split="test",
            metric_type=each.metric,
            metric_name=METRICS[each.metric][1],
            metric_value=round(each.value, 2),
        )
        for each in measured
    ]
    return ModelCardData(
        license=licence,
        library_name="ccl",
        pipeline_tag="video-classification" if artefact.classes else "feature-extraction",
        tags=_TAGS,
        model_name=artefact.recipe.name if measured else None,
        eval_results=evaluated or None,
    )


def _result_table(measured: Sequence[Result]) -> str:
    """Return a table with one row per data set; empty without results."""
    rows = [["data, test split", *(title for _, title in METRICS.values())]]
    for data in dict.fromkeys(each.data for each in measured):
        texts = {each.metric: _percent(each) for each in measured if each.data == data}
        rows.append([_text(data), *(texts.get(name, "") for name in METRICS)])
    return markdown_table(rows, "---") if measured else ""


def _percent(result: Result) -> str:
    """Format the value of the run, and mean and deviation over the seeds."""
    if len(result.seeds) < 2:
        return f"{result.value:.1f}"
    mean, deviation = statistics.fmean(result.seeds), statistics.stdev(result.seeds)
    return f"{result.value:.1f} (of {len(result.seeds)} seeds: {mean:.1f} ± {deviation:.1f})"


def _evaluated(folder: RunFolder, measured: Sequence[Result]) -> dict[str, Any]:
    """Return the counts of test videos by data set."""
    files = {each.data: read_json(folder.path / f"eval-{each.data}-test.json") for each in measured}
    return {data: counts for data, file in files.items() if (counts := file.get("counts", {}).get("test"))}


def _without_sound(modalities: Mapping[str, Mapping[str, int]] | None) -> str:
    """Count the videos without sound, by reason."""
    if modalities is None:
        return _UNKNOWN
    for name, states in modalities.items():
        if name.partition(":")[0] == "audio":
            silent = {state: count for state, count in states.items() if state != "present"}
            reasons = ", ".join(f"{count} {state}" for state, count in silent.items())
            return f"{sum(silent.values())} ({reasons})" if silent else "0"
    return f"{_UNKNOWN}: not determined without an audio teacher"


def _weights(text: str, summary: Mapping[str, Any]) -> tuple[str, str]:
    """Return the weights of a teacher, and their licence."""
    spec = parse_model(text)
    record = summary.get("teachers", {}).get(spec.label, {})
    if record.get("random_weights") or spec.options.get("weights") == "random":
        return "random, as requested", "none needed"
    if spec.weights:
        return f"local file: {Path(str(spec.weights)).name}", _UNKNOWN
    try:
        plugin = registry.find(registry.TEACHERS, spec.label)
        with registry.blaming(plugin):
            weights = registry.load(plugin).weight_files(spec)
    except (CclError, OSError):  # for example if the plugin is not installed
        weights = []
    names = ", ".join(file.filename for file in weights) or str(record.get("variant") or _UNKNOWN)
    licences = sorted({file.licence or _UNKNOWN for file in weights})
    return names, ", ".join(licences) or _UNKNOWN


def _text(value: object) -> str:
    """Escape text for one line of Markdown, including ``$``, which the Hub renders as math."""
    return _MORE_SIGNS.sub(r"\\\1", escape_markdown(one_line(value)))


def _code(value: object) -> str:
    """Escape text for inline code."""
    return one_line(value).replace("`", "'")
