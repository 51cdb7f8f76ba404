"""The card of a published model: what it is, what it was made from, what it reached, where it ends."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ccl_cli import registry
from ccl_cli.engine.artefact import Artefact, load_model
from ccl_cli.engine.runs import CELL, RunFolder, locate_model
from ccl_cli.errors import CclError
from ccl_cli.recipe_files import to_yaml
from ccl_cli.report.collect import METRICS, Run, collect
from ccl_cli.report.markdown import escaped
from ccl_cli.spec import parse_model

CARD = "README.md"
_UNKNOWN = "unknown"
_CLASSES = 40  # that are named one by one
_PAPER = "Chen et al., *Distilling Audio-Visual Knowledge by Compositional Contrastive Learning*, CVPR 2021"


@dataclass(frozen=True)
class Figure:
    """One figure of one data set, in percent, over the seeds of a benchmark or of this run alone."""

    data: str
    metric: str
    value: float
    seeds: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """The run's own value, and what all seeds reached."""
        if len(self.seeds) < 2:
            return f"{self.value:.1f}"
        mean, deviation = statistics.fmean(self.seeds), statistics.stdev(self.seeds)
        return f"{self.value:.1f} (of {len(self.seeds)} seeds: {mean:.1f} ± {deviation:.1f})"


def card(run: Path | None) -> tuple[Path, str]:
    """Write a model's card.

    What nobody recorded is left out or said to be unknown.

    Args:
        run: A run folder, a model file, or None for the newest run.

    Returns:
        The folder that the model lies in, and Markdown that begins with the Hugging Face Hub's fields.

    Raises:
        DataError: there is no such run, or it has no model.
        WeightsError: the model is damaged.
    """
    folder, path = locate_model(run)
    artefact = load_model(path)
    summary = folder.summary if folder else {}
    found = list(figures(folder)) if folder else []
    parts = [
        _front_matter(artefact, found),
        f"# {escaped(artefact.recipe.name)}",
        _introduction(artefact, summary),
        *_section("Use", _use(artefact)),
        *_section("Results", _results(found)),
        *_section("Data", _data(artefact, summary)),
        *_section("Teachers", _teachers(artefact, summary)),
        *_section("Limits", _limits(artefact)),
        *_section("Recipe", _recipe(artefact, summary)),
    ]
    return path.parent, "\n\n".join(parts) + "\n"


def figures(folder: RunFolder) -> Iterator[Figure]:
    """What the run's evaluations say; of a benchmark's run, also what its other seeds reached."""
    try:
        own = collect([folder.path]).runs[0]
    except CclError:  # not evaluated yet
        return
    others = _seeds(folder, own)
    for (data, metric), value in own.figures.items():
        if metric in METRICS:
            yield Figure(data, metric, value, tuple(run.figures[data, metric] for run in others))


def _seeds(folder: RunFolder, own: Run) -> list[Run]:
    if not (folder.path / CELL).is_file():
        return []
    runs = collect([folder.path.parent]).runs
    same = [run for run in runs if (run.method, run.setup) == (own.method, own.setup)]
    return [run for run in same if own.figures.keys() <= run.figures.keys()]


def _front_matter(artefact: Artefact, found: Sequence[Figure]) -> str:
    recipe = artefact.recipe
    fields: dict[str, Any] = {
        "library_name": "ccl",
        "pipeline_tag": "video-classification",
        "tags": ["video", "action-recognition", "video-retrieval", "knowledge-distillation", "ccl"],
    }
    if found:
        results = [
            {
                "task": {"type": "video-classification"},
                "dataset": {"name": data, "type": data},
                "metrics": [
                    {"type": each.metric, "name": METRICS[each.metric][1], "value": round(each.value, 2)}
                    for each in found
                    if each.data == data
                ],
            }
            for data in dict.fromkeys(each.data for each in found)
        ]
        fields["model-index"] = [{"name": recipe.name, "results": results}]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _introduction(artefact: Artefact, summary: Mapping[str, Any]) -> str:
    student, recipe = artefact.student, artefact.recipe
    parameters = sum(each.numel() for each in student.parameters())
    taught = f"taught by {_listed(recipe.teachers)}" if recipe.teachers else "trained without a teacher"
    method = escaped(summary.get("method") or recipe.method_label)
    lines = [
        f"A video network (`{_code(str(recipe.student))}`, {parameters / 1e6:.2f} million parameters) "
        f"{taught}, by the method {method}: {len(artefact.classes)} classes, a feature of "
        f"{student.feature_dim} numbers for retrieval. It needs the pictures alone, no sound and no teacher.",
        f"Made with ccl {escaped(str(artefact.header.get('version', _UNKNOWN)))}, after {_PAPER}.",
    ]
    return "\n\n".join(lines)


def _use(artefact: Artefact) -> list[str]:
    clip = artefact.recipe.clip
    return [
        "```bash\nccl pull OWNER/NAME --output model\nccl predict my_videos --model model/model.safetensors\n"
        "ccl embed my_videos --model model/model.safetensors --output features.npz\n```",
        f"The network sees clips of {clip.frames} frames of {clip.size}x{clip.size} pixels, the middle of "
        f"frames whose short side is scaled to that; a video's score is the mean over clips every "
        f"{artefact.recipe.eval.stride} frames. All of this is in the header of `model.safetensors`.",
    ]


def _results(found: Sequence[Figure]) -> list[str]:
    if not found:
        return ["Not evaluated."]
    rows = [["data, test split", *(METRICS[name][1] for name in METRICS)]]
    for data in dict.fromkeys(each.data for each in found):
        texts = {each.metric: each.text for each in found if each.data == data}
        rows.append([escaped(data), *(texts.get(name, "") for name in METRICS)])
    seeds = max(len(each.seeds) for each in found)
    if seeds > 1:
        said = f"In percent; this run, and the mean and deviation over the {seeds} seeds of its benchmark."
    else:
        said = "In percent, from one run: how far other seeds would be from it is unknown."
    return [_table(rows), said]


def _data(artefact: Artefact, summary: Mapping[str, Any]) -> list[str]:
    data = summary.get("data", {})
    name = escaped(str(data.get("name") or artefact.recipe.data or _UNKNOWN))
    if not data:
        return [f"Trained on {name}. How many videos that were is not recorded in the model file."]
    rows = [
        ["listed for training", str(data.get("train", _UNKNOWN))],
        ["seen in training", str(data.get("seen", _UNKNOWN))],
        ["not on disk", str(len(data.get("missing", ())))],
        ["unreadable", str(len(data.get("unreadable", ())))],
    ]
    for modality, counts in sorted(data.get("modalities", {}).items()):
        said = ", ".join(f"{count} {escaped(state)}" for state, count in sorted(counts.items()))
        rows.append([f"for {escaped(modality)}", said])
    manifest = escaped(str(data.get("manifest", _UNKNOWN)))
    return [
        _table([["videos of " + name, ""], *rows]),
        f"Hash of the list of videos: `{_code(manifest)}`.",
        f"Classes: {_classes(artefact.classes)}.",
    ]


def _classes(classes: Sequence[str]) -> str:
    shown = ", ".join(escaped(each) for each in classes[:_CLASSES])
    return shown + (f" and {len(classes) - _CLASSES} more" if len(classes) > _CLASSES else "")


def _teachers(artefact: Artefact, summary: Mapping[str, Any]) -> list[str]:
    specs = artefact.recipe.teachers
    if not specs:
        return ["None."]
    rows = [["teacher", "weights", "licence of the weights"]]
    records = summary.get("teachers", {})
    for spec in specs:
        record = records.get(parse_model(spec).label, {})
        rows.append([escaped(spec), *map(escaped, _weights(spec, record))])
    return [
        _table(rows),
        "The teachers' weights are no part of this model. Their licences may bear on its use.",
    ]


def _weights(text: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """Which weights a teacher had, and under which licence."""
    spec = parse_model(text)
    if record.get("random_weights"):
        return "random, on request", "none"
    if spec.weights:
        return f"a file of the user's: {Path(str(spec.weights)).name}", _UNKNOWN
    try:
        plugin = registry.find(registry.TEACHERS, spec.label)
        with registry.blaming(plugin):
            files = registry.load(plugin).weight_files(spec)
    except (CclError, OSError):
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
        "* What is wrong or one-sided in the videos it was trained on, and in its teachers, is in it too.\n"
        "* The licence of the model is for its owner to state; that of the videos is not recorded."
    ]


def _recipe(artefact: Artefact, summary: Mapping[str, Any]) -> list[str]:
    facts = [
        f"{label}: {escaped(str(summary[key]))}"
        for key, label in (("seed", "seed"), ("steps", "steps"), ("seconds", "seconds"), ("device", "device"))
        if key in summary
    ]
    versions = summary.get("versions", {})
    facts += [
        f"{escaped(name)} {escaped(str(version))}" for name, version in versions.items() if name != "ccl"
    ]
    # A fence longer than any in the text.
    return [
        *([", ".join(facts) + "."] if facts else []),
        f"````yaml\n{to_yaml(artefact.recipe).rstrip()}\n````",
    ]


def _section(title: str, parts: Sequence[str]) -> list[str]:
    return [f"## {title}", *parts]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{_code(name)}`" for name in names)


def _code(text: str) -> str:
    """What may stand between backticks."""
    return " ".join(text.replace("`", "'").split())
