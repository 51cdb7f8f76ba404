"""Predictions as JSON records and CSV rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ccl_cli.deploy.predict import Prediction
from ccl_cli.utils.rows import Record, csv_form

_COLUMNS = ("video", "windows", "rank", "class", "probability", "error")


def prediction_record(prediction: Prediction) -> Record:
    """Record of a video's most probable classes, or of the reason why it is unreadable."""
    if prediction.fault:
        return unreadable_record(prediction.path, prediction.fault)
    classes = [{"class": name, "probability": round(value, 6)} for name, value in prediction.classes]
    return {"video": prediction.path, "windows": prediction.windows, "classes": classes}


def unreadable_record(path: str, reason: str) -> Record:
    """Record of an unreadable file or folder."""
    return {"video": path, "error": reason}


def _csv_rows(record: Record) -> Iterator[Sequence[object]]:
    if "error" in record:
        yield record["video"], "", "", "", "", record["error"]
    for rank, each in enumerate(record.get("classes", ()), 1):
        yield record["video"], record["windows"], rank, each["class"], each["probability"], ""


CSV = csv_form(_COLUMNS, _csv_rows)  # one row per class and video
