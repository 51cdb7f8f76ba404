"""Model cards: network, data, teachers, results and limitations of a published model."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

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
_MAX_CLASSES = 40  # classes to list by name


@dataclass(frozen=True)
class Result:
    """A metric on a data set, in percent.

    Attributes:
        data: Name of the data set.
        metric: Key of ``METRICS``.
        value: Result of this run.
        seeds: Results of all runs of the benchmark that differ only in the seed, including this one.
    """

    data: str
    metric: str
    value: float
    seeds: tuple[float, ...]

    @property
    def text(self) -> str:
        """Format the value of the run, and mean and deviation over the seeds."""
        if len(self.seeds) < 2:
            return f"{self.value:.1f}"
        mean, deviation = statistics.fmean(self.seeds), statistics.stdev(self.seeds)
        return f"{self.value:.1f} (of {len(self.seeds)} seeds: {mean:.1f} ± {deviation:.1f})"


def card(run: Path | None, *, licence: str = _UNKNOWN, repository: str = "OWNER/NAME") -> tuple[Path, str]:
    """Create the model card of a run.

    Facts that were not recorded are omitted or listed as unknown.

    Args:
        run: Run folder or model file. Default: the newest run.
        licence: Identifier of the model's licence on the Hub, such as ``apache-2.0``.
        repository: Repository of the model, for the download command in the card.

    Returns:
        The model's folder, and the card as Markdown with the metadata block of the Hugging Face Hub.

    Raises:
        UsageError: the licence identifier is invalid.
        DataError: the run does not exist or has no model.
        WeightsError: the model is damaged.
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
    text = to_yaml(artefact.recipe).rstrip()
    content = ModelCard.from_template(
        _card_data(artefact, measured, licence),
        template_str=(files("ccl_cli.deploy") / "card.md").read_text(encoding="utf-8"),
        text=_text,
        code=_code,
        table=markdown_table,
        recipe=artefact.recipe,
        preprocessing=describe_preprocessing(artefact.recipe),
        summary=summary,
        parameters=sum(each.numel() for each in artefact.student.parameters()),
        feature_dim=artefact.student.feature_dim,
        version=artefact.header.get("version", _UNKNOWN),
        repository=repository,
        results=_result_rows(measured),
        seeds=max((len(each.seeds) for each in measured), default=0),
        failed=failed,
        data=_data_rows(artefact.recipe.data, summary, folder, measured),
        classes=artefact.classes,
        max_classes=_MAX_CLASSES,
        teachers=_teacher_rows(artefact.recipe.teachers, summary),
        licence=licence,
        facts=_facts(artefact, summary),
        recipe_yaml=text,
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0)),
    )
    return path.parent, f"{content}\n"


def results(folder: RunFolder) -> tuple[list[Result], int]:
    """Collect the results of a run on test splits.

    Returns:
        The results, including those of the other seeds for a run of a benchmark, and the number of failed
        seeds.
    """
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

    return ModelCardData(
        license=licence,
        library_name="ccl",
        pipeline_tag="video-classification" if artefact.classes else "feature-extraction",
        tags=_TAGS,
        model_name=artefact.recipe.name if measured else None,
        eval_results=[
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
        or None,
    )


def _result_rows(measured: Sequence[Result]) -> list[list[str]]:
    """Return a header and one row per data set; empty without results."""
    rows = [["data, test split", *(title for _, title in METRICS.values())]]
    for data in dict.fromkeys(each.data for each in measured):
        texts = {each.metric: each.text for each in measured if each.data == data}
        rows.append([_text(data), *(texts.get(name, "") for name in METRICS)])
    return rows if measured else []


def _data_rows(
    name: str | None, summary: Mapping[str, Any], folder: RunFolder | None, measured: Sequence[Result]
) -> list[list[str]]:
    data = summary.get("data", {})
    return [
        [f"videos of {_text(data.get('name') or name or _UNKNOWN)}", ""],
        ["listed for training", _text(data.get("train", _UNKNOWN))],
        ["used in training", _text(data.get("seen", _UNKNOWN))],
        ["not on disk", str(len(data["missing"])) if "missing" in data else _UNKNOWN],
        ["unreadable", str(len(data["unreadable"])) if "unreadable" in data else _UNKNOWN],
        ["without sound", _without_sound(data["modalities"]) if "modalities" in data else _UNKNOWN],
        *(_evaluated_rows(folder, measured) if folder else ()),
    ]


def _evaluated_rows(folder: RunFolder, measured: Sequence[Result]) -> Iterator[list[str]]:
    """Yield the evaluated data sets with their unreadable videos."""
    for data in dict.fromkeys(each.data for each in measured):
        counts = read_json(folder.path / f"eval-{data}-test.json").get("counts", {}).get("test", {})
        if counts:
            videos, missing, corrupt = (counts.get(k, _UNKNOWN) for k in ("videos", "missing", "corrupt"))
            bad = f"{missing} not on disk, {corrupt} unreadable"
            yield [f"{_text(data)}: test videos", f"{videos}, including {bad}"]


def _without_sound(modalities: Mapping[str, Mapping[str, int]]) -> str:
    audio = next((states for name, states in modalities.items() if name.partition(":")[0] == "audio"), None)
    if audio is None:
        return f"{_UNKNOWN}: not determined without an audio teacher"
    silent = {state: count for state, count in audio.items() if state != "present"}
    reasons = ", ".join(f"{count} {_text(state)}" for state, count in silent.items())
    return f"{sum(silent.values())}" + (f" ({reasons})" if reasons else "")


def _teacher_rows(specs: Sequence[str], summary: Mapping[str, Any]) -> list[list[str]]:
    records = summary.get("teachers", {})
    rows = [["teacher", "weights", "licence of the weights"]]
    for spec in specs:
        record = records.get(parse_model(spec).label, {})
        rows.append([_text(each) for each in (spec, *_weights(spec, record))])
    return rows


def _weights(text: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """Return the weights of a teacher, and their licence."""
    spec = parse_model(text)
    if record.get("random_weights") or spec.options.get("weights") == "random":
        return "random, as requested", "none needed"
    if spec.weights:
        return f"local file: {Path(str(spec.weights)).name}", _UNKNOWN
    try:
        plugin = registry.find(registry.TEACHERS, spec.label)
        with registry.blaming(plugin):
            weights = registry.load(plugin).weight_files(spec)
    except (CclError, OSError):  # for example if the plugin is not installed
        return str(record.get("variant") or _UNKNOWN), _UNKNOWN
    names = ", ".join(file.filename for file in weights) or str(record.get("variant") or _UNKNOWN)
    licences = sorted({file.licence or _UNKNOWN for file in weights})
    return names, ", ".join(licences) or _UNKNOWN


def _facts(artefact: Artefact, summary: Mapping[str, Any]) -> list[str]:
    """List the published weights, the settings of the run (seed, length, device) and package versions."""
    versions = summary.get("versions", {})
    about = {key: artefact.header.get(key, "") for key in ("weights", "selection")}
    about |= {key: summary.get(key, "") for key in ("seed", "steps", "seconds", "device")}
    return [f"{key}: {_text(value)}" for key, value in about.items() if value != ""] + [
        f"{_text(name)} {_text(version)}" for name, version in versions.items() if name != "ccl"
    ]


def _text(value: object) -> str:
    """Escape text for one line of Markdown, including ``$``, which the Hub renders as math."""
    return _MORE_SIGNS.sub(r"\\\1", escape_markdown(one_line(value)))


def _code(value: object) -> str:
    """Escape text for inline code."""
    return one_line(value).replace("`", "'")
