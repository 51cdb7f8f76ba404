"""The loader's reports on training videos: states of modalities, and reasons for unreadable videos."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from ccl_cli.data.clips.dataset import LoadedBatch
from ccl_cli.data.manifest import check_unreadable
from ccl_cli.training.build import Parts
from ccl_cli.training.cache.read import CachedRows
from ccl_cli.utils.distributed import gather_objects


@dataclass
class VideoStates:
    """Reports of the loader, by row of the training split.

    ``modalities`` are states of readable videos, e.g. ``{"audio": "silent"}``; ``unreadable`` has reasons.
    """

    modalities: dict[int, dict[str, str]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def add(self, loaded: LoadedBatch) -> None:
        """Add the reports of one batch."""
        self.modalities.update(loaded.states)
        self.unreadable.update(loaded.unreadable)

    def check(self, parts: Parts, limit: float) -> None:
        """Raise a DataError if more than a share of the training videos is unreadable. A collective call."""
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

    def counts(self, caches: Collection[CachedRows]) -> dict[str, dict[str, int]]:
        """Number of videos by modality and state, e.g. ``{"audio": {"present": 9, "silent": 1}}``.

        The caches that a run reads record the states of their modality.
        """
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for row, modalities in self.modalities.items():
            recorded = {rows.cached.header.kind: rows.state(row) for rows in caches}
            for modality, state in (modalities | recorded).items():
                counts[modality][state] += 1
        return {modality: dict(by_state) for modality, by_state in counts.items()}
