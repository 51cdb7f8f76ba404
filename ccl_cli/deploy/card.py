"""The card of a published model: what it is, what it was made from, what it reached, where it ends."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ccl_cli import registry
from ccl_cli.config.load import to_yaml
from ccl_cli.config.spec import parse_model
from ccl_cli.errors import CclError, UsageError
from ccl_cli.report.collect import METRICS, Collected, Run, clean, collect, seedless
from ccl_cli.report.markdown import escaped
from ccl_cli.training.artefact import Artefact, load_model
from ccl_cli.training.runs import CELL, RunFolder, locate_model, read_json

CARD = "README.md"
_UNKNOWN = "unknown"  # also the Hub's word for a licence that is not known
_MORE_SIGNS = re.compile(r"([&~$])")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
# The Hub's kinds of tasks have none for retrieval among videos.
_TASKS = {
    "recognition": {"type": "video-classification"},
    "retrieval": {"type": "other", "name": "Video retrieval"},
}
_CLASSES = 40  # that are named one by one
_PAPER = "Chen et al., *Distilling Audio-Visual Knowledge by Compositional Contrastive Learning*, CVPR 2021"


@dataclass(frozen=True)
class Figure:
    """One figure of one data set, in percent.

    Attributes:
        data: Name of the data set.
        metric: See ``METRICS``.
        value: What this run reached.
        seeds: What its benchmark's runs reached that differ from it in their seed alone, and itself.
    """

    data: str
    metric: str
    value: float
    seeds: tuple[float, ...]

    @property
    def text(self) -> str:
        """The run's own value, and what all seeds reached."""
        if len(self.seeds) < 2:
            return f"{self.value:.1f}"
        mean, deviation = statistics.fmean(self.seeds), statistics.stdev(self.seeds)
        return f"{self.value:.1f} (of {len(self.seeds)} seeds: {mean:.1f} ± {deviation:.1f})"


def card(run: Path | None, *, licence: str = _UNKNOWN, repository: str = "OWNER/NAME") -> tuple[Path, str]:
    """Write a model's card.

    What nobody recorded is left out or said to be unknown.

    Args:
        run: A run folder, a model file, or None for the newest run.
        licence: Of the model, by the Hub's name of it, such as ``apache-2.0``.
        repository: Where it will be, for the command that gets it.

    Returns:
        The folder that the model lies in, and Markdown that begins with the Hugging Face Hub's fields.

    Raises:
        UsageError: the licence is no name of the Hub's.
        DataError: there is no such run, or it has no model.
        WeightsError: the model is damaged.
    """
    if not _LICENCE.fullmatch(licence):
        raise UsageError(
            f"'{licence}' is not one of the Hub's names of licences.",
            "They are in small letters, such as apache-2.0, mit, cc-by-4.0, other or unknown.",
        )
    folder, path = locate_model(run)
    artefact = load_model(path)
    summary = folder.summary if folder else {}
    found, failed = figures(folder) if folder else ([], 0)
    parts = [
        _front_matter(artefact, found, licence),
        f"# {_text(artefact.recipe.name)}",
        _introduction(artefact, summary),
        *_section("Use", _use(artefact, repository)),
        *_section("Results", _results(found, failed, summary)),
        *_section("Data", _data(artefact, summary, _evaluated(folder, found))),
        *_section("Teachers", _teachers(artefact, summary)),
        *_section("Limits", _limits(artefact)),
        *_section("Licence", _licence(licence)),
        *_section("Recipe", _recipe(artefact, summary)),
    ]
    return path.parent, "\n\n".join(parts) + "\n"


def figures(folder: RunFolder) -> tuple[list[Figure], int]:
    """What a run's evaluations on test splits say.

    Returns:
        The figures, with those of the other seeds where the run is a benchmark's; and how many of those seeds
        failed.
    """
    try:
        own = collect([folder.path]).runs[0]
    except CclError:  # not evaluated yet, or stopped before its end
        return [], 0
    together = collect([folder.path.parent]) if (folder.path / CELL).is_file() else Collected((own,), (), ())
    same = [run for run in together.runs if _differ_in_seed(run, own)]
    failed = [run for run in together.failed if (run.method, run.setup) == (own.method, own.setup)]
    return [_figure(own, data, metric, same) for data, metric in own.figures], len(failed)


def _differ_in_seed(run: Run, own: Run) -> bool:
    return (run.method, run.setup, seedless(run.recipe)) == (own.method, own.setup, seedless(own.recipe))


def _figure(own: Run, data: str, metric: str, same: Sequence[Run]) -> Figure:
    on_its_videos = [run for run in same if run.manifests.get(data) == own.manifests[data]]
    seeds = tuple(run.figures[data, metric] for run in on_its_videos if (data, metric) in run.figures)
    return Figure(data, metric, own.figures[data, metric], seeds)


def _front_matter(artefact: Artefact, found: Sequence[Figure], licence: str) -> str:
    fields: dict[str, Any] = {
        "license": licence,
        "library_name": "ccl",
        "pipeline_tag": "video-classification",
        "tags": ["video", "action-recognition", "video-retrieval", "knowledge-distillation", "ccl"],
    }
    if found:
        fields["model-index"] = [{"name": artefact.recipe.name, "results": list(_index(found))}]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _index(found: Sequence[Figure]) -> Iterator[dict[str, Any]]:
    for data in dict.fromkeys(each.data for each in found):
        for task, described in _TASKS.items():
            metrics = [
                {"type": each.metric, "name": METRICS[each.metric][1], "value": round(each.value, 2)}
                for each in found
                if each.data == data and METRICS[each.metric][0] == task
            ]
            if metrics:
                name = clean(data)
                dataset = {"name": name, "type": name, "split": "test"}
                yield {"task": described, "dataset": dataset, "metrics": metrics}


def _introduction(artefact: Artefact, summary: Mapping[str, Any]) -> str:
    student, recipe = artefact.student, artefact.recipe
    parameters = sum(each.numel() for each in student.parameters())
    taught = f"taught by {_listed(recipe.teachers)}" if recipe.teachers else "trained without a teacher"
    method = _text(summary.get("method") or recipe.method_label)
    lines = [
        f"A video network (`{_code(str(recipe.student))}`, {parameters / 1e6:.2f} million parameters) "
        f"{taught}, by the method {method}: {len(artefact.classes)} classes, a feature of "
        f"{student.feature_dim} numbers for retrieval. It needs the pictures alone, no sound and no teacher.",
        f"Made with ccl {_text(artefact.header.get('version', _UNKNOWN))}, after {_PAPER}.",
    ]
    return "\n\n".join(lines)


def _use(artefact: Artefact, repository: str) -> list[str]:
    clip = artefact.recipe.clip
    return [
        f"```bash\nccl pull {repository} --output model\n"
        "ccl predict my_videos --model model/model.safetensors\n"
        "ccl embed my_videos --model model/model.safetensors --output features.npz\n```",
        f"The network sees clips of {clip.frames} frames of {clip.size}x{clip.size} pixels, the middle of "
        f"frames whose short side is scaled to that; a video's score is the mean over clips every "
        f"{artefact.recipe.eval.stride} frames. All of this is in the header of `model.safetensors`.",
    ]


def _results(found: Sequence[Figure], failed: int, summary: Mapping[str, Any]) -> list[str]:
    if not found:
        return [_unfinished(summary) or "There are no figures of the finished run on a test split."]
    rows = [["data, test split", *(METRICS[name][1] for name in METRICS)]]
    for data in dict.fromkeys(each.data for each in found):
        texts = {each.metric: each.text for each in found if each.data == data}
        rows.append([_text(data), *(texts.get(name, "") for name in METRICS)])
    return [_table(rows), _spread(max(len(each.seeds) for each in found), failed)]


def _unfinished(summary: Mapping[str, Any]) -> str:
    if summary.get("finished", True):
        return ""
    return (
        f"The run was stopped before its end, after step {summary.get('steps', _UNKNOWN)}: figures of it are "
        "not those of its recipe, and are left out."
    )


def _spread(seeds: int, failed: int) -> str:
    lost = f" {failed} more failed and are not in it." if failed else ""
    if seeds > 1:
        return (
            "In percent: this run, then mean and standard deviation over the runs of its benchmark that "
            f"differ from it in their seed alone, itself among them.{lost}"
        )
    return f"In percent, from one run: how far other seeds would be from it is unknown.{lost}"


def _evaluated(folder: RunFolder | None, found: Sequence[Figure]) -> list[list[str]]:
    """Rows of what was evaluated on, with what could not be read."""
    rows = []
    for data in dict.fromkeys(each.data for each in found if folder):
        record = read_json(folder.path / f"eval-{data}-test.json") if folder else {}
        counts = record.get("counts", {}).get("test", {})
        if counts:
            bad = (
                f"{counts.get('missing', _UNKNOWN)} not on disk, {counts.get('corrupt', _UNKNOWN)} unreadable"
            )
            rows.append([f"{_text(data)}: tested on", f"{counts.get('videos', _UNKNOWN)}, of them {bad}"])
    return rows


def _data(artefact: Artefact, summary: Mapping[str, Any], evaluated: Sequence[Sequence[str]]) -> list[str]:
    data = summary.get("data", {})
    name = _text(data.get("name") or artefact.recipe.data or _UNKNOWN)
    classes = f"Classes: {_classes(artefact.classes)}."
    if not data:
        return [f"Trained on {name}. How many videos that were is not recorded in the model file.", classes]
    rows = [
        ["listed for training", _text(data.get("train", _UNKNOWN))],
        ["seen in training", _text(data.get("seen", _UNKNOWN))],
        ["not on disk", str(len(data["missing"])) if "missing" in data else _UNKNOWN],
        ["unreadable", str(len(data["unreadable"])) if "unreadable" in data else _UNKNOWN],
        ["without sound", _without_sound(data["modalities"]) if "modalities" in data else _UNKNOWN],
        *evaluated,
    ]
    manifest = _code(data.get("manifest", _UNKNOWN))
    return [_table([["videos of " + name, ""], *rows]), f"Hash of the list of videos: `{manifest}`.", classes]


def _without_sound(modalities: Mapping[str, Mapping[str, int]]) -> str:
    heard = next((found for name, found in modalities.items() if name.partition(":")[0] == "audio"), None)
    if heard is None:
        return f"{_UNKNOWN}: no teacher of sound was there to find out"
    silent = {state: count for state, count in heard.items() if state != "present"}
    reasons = ", ".join(f"{count} {_text(state)}" for state, count in silent.items())
    return f"{sum(silent.values())}" + (f" ({reasons})" if reasons else "")


def _classes(classes: Sequence[str]) -> str:
    shown = ", ".join(map(_text, classes[:_CLASSES]))
    return shown + (f" and {len(classes) - _CLASSES} more" if len(classes) > _CLASSES else "")


def _teachers(artefact: Artefact, summary: Mapping[str, Any]) -> list[str]:
    specs = artefact.recipe.teachers
    if not specs:
        return ["None."]
    rows = [["teacher", "weights", "licence of the weights"]]
    records = summary.get("teachers", {})
    for spec in specs:
        record = records.get(parse_model(spec).label, {})
        rows.append([_text(spec), *map(_text, _weights(spec, record))])
    return [
        _table(rows),
        "The teachers' weights are no part of this model. Their licences may bear on its use.",
    ]


def _weights(text: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """Which weights a teacher had, and under which licence."""
    spec = parse_model(text)
    if record.get("random_weights") or spec.options.get("weights") == "random":
        return "random, on request", "none needed"
    if spec.weights:
        return f"a file of the user's: {Path(str(spec.weights)).name}", _UNKNOWN
    try:
        plugin = registry.find(registry.TEACHERS, spec.label)
        with registry.blaming(plugin):
            files = registry.load(plugin).weight_files(spec)
    except (CclError, OSError):  # also where the plugin is not on this machine
        return str(record.get("variant") or _UNKNOWN), _UNKNOWN
    names = ", ".join(file.filename for file in files) or str(record.get("variant") or _UNKNOWN)
    licences = sorted({file.licence or _UNKNOWN for file in files})
    return names, ", ".join(licences) or _UNKNOWN


def _limits(artefact: Artefact) -> list[str]:
    clip = artefact.recipe.clip
    return [
        f"* It knows its {len(artefact.classes)} classes alone, and names one of them for every video.\n"
        f"* It has seen frames of {clip.size} pixels, {clip.frames} at a time: what is small or slow may "
        "be lost on it.\n"
        "* Its probabilities are not calibrated.\n"
        "* It hears nothing: what only sound tells apart is lost on it.\n"
        "* What is wrong or one-sided in the videos it was trained on, and in its teachers, is in it too."
    ]


def _licence(licence: str) -> list[str]:
    stated = "unknown: its owner has not stated one" if licence == _UNKNOWN else licence
    return [
        f"Of the model: {stated}. Of the videos it was trained on: not recorded. Of the teachers: see above."
    ]


def _recipe(artefact: Artefact, summary: Mapping[str, Any]) -> list[str]:
    facts = [
        f"{key}: {_text(summary[key])}" for key in ("seed", "steps", "seconds", "device") if key in summary
    ]
    versions = summary.get("versions", {})
    facts += [f"{_text(name)} {_text(version)}" for name, version in versions.items() if name != "ccl"]
    text = to_yaml(artefact.recipe).rstrip()
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [*([", ".join(facts) + "."] if facts else []), f"{fence}yaml\n{text}\n{fence}"]


def _section(title: str, parts: Sequence[str]) -> list[str]:
    return [f"## {title}", *parts]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *body])


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{_code(name)}`" for name in names)


def _text(value: object) -> str:
    """On one line, and nothing of it means anything to Markdown, nor to the Hub's pages (``$``)."""
    return _MORE_SIGNS.sub(r"\\\1", escaped(clean(value)))


def _code(value: object) -> str:
    """What may stand between backticks."""
    return clean(value).replace("`", "'")
