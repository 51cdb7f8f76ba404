"""What the loader reported of each training video: the state of its modalities, or why it is unreadable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from ccl_cli.data.clips.dataset import LoadedBatch
from ccl_cli.data.manifest import check_unreadable
from ccl_cli.training.build import Parts
from ccl_cli.utils.distributed import gather_objects


@dataclass
class VideoStates:
    """Reports of the loader, by row of the training split.

    Attributes:
        modalities: Of each video that was read, the state of each modality, e.g. ``{"audio": "silent"}``.
        unreadable: Of each video that was not, the reason.
    """

    modalities: dict[int, dict[str, str]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def add(self, loaded: LoadedBatch) -> None:
        """Take in the reports of one batch."""
        self.modalities.update(loaded.states)
        self.unreadable.update(loaded.unreadable)

    def check(self, parts: Parts, limit: float) -> None:
        """Stop when more than this share of the training videos cannot be read. For all processes at once.

        Raises:
            DataError: names some of them.
        """
        gathered = gather_objects(self.unreadable)
        unreadable = {row: reason for reasons in gathered for row, reason in reasons.items()}
        count, examples = len(parts.missing) + len(unreadable), [parts.videos[row] for row in unreadable]
        videos = len(parts.videos) + len(parts.missing)
        check_unreadable(count, parts.manifest, "train", limit, examples, videos=videos)

    def gathered(self) -> VideoStates:
        """The reports of all processes, on each of them."""
        union = VideoStates()
        for states in gather_objects(self):
            union.modalities.update(states.modalities)
            union.unreadable.update(states.unreadable)
        return union


def count_states(modalities: Mapping[int, Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """How many videos had each state of each modality, e.g. ``{"audio": {"present": 9, "silent": 1}}``."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for states in modalities.values():
        for modality, state in states.items():
            counts[modality][state] += 1
    return {modality: dict(by_state) for modality, by_state in counts.items()}
