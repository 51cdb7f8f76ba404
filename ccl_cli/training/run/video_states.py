"""The loader's reports on training videos: states of modalities, and reasons for unreadable videos."""

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
        modalities: State of each modality of the readable videos, e.g. ``{"audio": "silent"}``.
        unreadable: Reasons, of the unreadable videos.
    """

    modalities: dict[int, dict[str, str]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def add(self, loaded: LoadedBatch) -> None:
        """Add the reports of one batch."""
        self.modalities.update(loaded.states)
        self.unreadable.update(loaded.unreadable)

    def check(self, parts: Parts, limit: float) -> None:
        """Check that at most this share of the training videos is unreadable. A collective call.

        Raises:
            DataError: more videos are unreadable.
        """
        gathered = gather_objects(self.unreadable)
        unreadable = {row: reason for reasons in gathered for row, reason in reasons.items()}
        count, examples = len(parts.missing) + len(unreadable), [parts.videos[row] for row in unreadable]
        videos = len(parts.videos) + len(parts.missing)
        check_unreadable(count, parts.manifest, "train", limit, examples, videos=videos)

    def gathered(self) -> VideoStates:
        """The reports of all processes. A collective call."""
        union = VideoStates()
        for states in gather_objects(self):
            union.modalities.update(states.modalities)
            union.unreadable.update(states.unreadable)
        return union


def count_states(modalities: Mapping[int, Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Number of videos by modality and state, e.g. ``{"audio": {"present": 9, "silent": 1}}``."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for states in modalities.values():
        for modality, state in states.items():
            counts[modality][state] += 1
    return {modality: dict(by_state) for modality, by_state in counts.items()}
