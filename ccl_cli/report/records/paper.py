"""Results and row names that the paper printed (Chen et al., CVPR 2021, Tables 1-3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

# Rows in the paper's order: our label and the paper's label.
METHODS = {
    "baseline": "baseline",
    "fitnet": "FitNet",
    "pkt": "PKT",
    "cckd": "COR",
    "rkd": "RKD",
    "crd": "CRD",
    "ifd": "IFD",
    "cmc": "CMC",
    "ccl": "CCL",
}
ABLATIONS = {
    "ccl w/o composition": "CCL w/o composition",
    "ccl w L_ct": "CCL w L_ct",
    "ccl w/o L_nce": "CCL w/o L_nce",
    "ccl w/o L_jsd": "CCL w/o L_JSD",
}
# (a) model component, (b) loss formulation.
PARTS = dict(zip(ABLATIONS, ("(a)", "(b)", "(b)", "(b)"), strict=True))
SETUPS = ("A", "I", "AI")

# Our names of the paper's data sets.
_DATA = {"ucf51": "ucf51", "ucf51-split1": "ucf51", "activitynet": "activitynet"}
_TABLES = ("ucf51", "activitynet")

_RECOGNITION = """
    57.5 57.5 57.5   32.6 32.6 32.6
    48.4 67.4 62.4   21.3 45.8 34.6
    53.2 58.2 62.0   33.4 35.4 35.1
    57.7 65.5 66.3   31.4 43.1 41.7
    53.0 55.4 58.2   -    34.3 -
    60.3 61.4 63.2   36.4 37.3 36.6
    56.3 54.2 64.2   34.6 33.8 35.4
    59.2 60.4 63.1   34.4 23.7 33.9
    64.9 69.1 70.0   36.5 46.3 47.3
"""
_RETRIEVAL = """
    57.3 65.3 68.9  57.3 65.3 68.9  57.3 65.3 68.9   29.0 46.5 54.9  29.0 46.5 54.9  29.0 46.5 54.9
    31.9 42.5 47.6  51.4 66.9 73.7  61.2 68.7 72.4   16.5 32.8 42.1  30.7 52.6 62.5  30.5 48.3 57.0
    48.4 57.2 61.8  53.0 63.4 68.9  61.2 69.1 72.2   26.4 44.4 53.3  28.1 48.1 57.4  30.3 47.6 56.2
    51.7 58.6 61.4  56.1 66.9 73.7  52.8 65.1 72.6   27.3 45.7 54.9  33.2 55.2 64.6  30.2 51.7 61.7
    46.6 56.8 61.8  51.2 59.7 65.3  55.8 63.7 66.9   -    -    -     27.1 47.1 56.1  -    -    -
    59.5 65.8 68.0  59.1 66.5 69.1  61.0 66.9 70.1   31.6 50.4 58.9  32.3 50.7 58.6  33.1 49.8 58.2
    53.8 60.8 65.6  48.0 58.6 65.3  64.3 71.1 74.2   28.9 47.1 56.1  25.3 44.4 54.4  30.0 47.6 56.1
    57.9 64.5 67.7  60.1 63.5 65.0  62.9 69.0 71.7   30.0 49.1 57.6  25.2 44.2 53.6  30.9 48.2 55.9
    62.9 68.0 70.4  66.8 73.5 76.5  67.6 72.3 74.7   30.6 49.1 57.3  38.1 58.8 67.4  39.5 59.3 67.4
"""
_ABLATION = """
    63.2 65.8 66.9
    60.4 68.4 67.8
    63.1 67.4 66.3
    64.0 67.8 68.2
"""


def printed_value(data: str, method: str, setup: str, metric: str) -> str:
    """Return a value as the paper printed it, in percent.

    Args:
        data: Name of the data set.
        method: Our label of the row.
        setup: "A", "I" or "AI"; "" for the baseline.
        metric: "top1", "r1", "r5" or "r10".

    Returns:
        The printed text; "-" for a model that did not converge, "" if the paper has no such value.
    """
    return _FIGURES.get((_DATA.get(data, ""), method, setup or "A", metric), "")


def has(data: str) -> bool:
    """Whether the paper has results on this data set."""
    return data in _DATA


def place(data: str) -> tuple[int, str]:
    """Sort key of data sets: those of the paper first, in its order."""
    return (_TABLES.index(_DATA[data]) if data in _DATA else len(_TABLES), data)


def printed_name(label: str) -> str:
    """The paper's name of a row; our label if the paper has no such row."""
    return (METHODS | ABLATIONS).get(label, label)


_Key = tuple[str, str, str, str]


def _read(text: str, rows: Sequence[str], metrics: Sequence[str]) -> Iterator[tuple[_Key, str]]:
    for method, line in zip(rows, text.split("\n")[1:-1], strict=True):
        for (data, setup, metric), value in zip(
            product(_TABLES, SETUPS, metrics), line.split(), strict=False
        ):
            yield (data, method, setup, metric), value


_FIGURES = {
    **dict(_read(_RECOGNITION, list(METHODS), ["top1"])),
    **dict(_read(_RETRIEVAL, list(METHODS), ["r1", "r5", "r10"])),
    **dict(_read(_ABLATION, list(ABLATIONS), ["top1"])),
}
