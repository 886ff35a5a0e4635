"""Pieces of the probe of rooms on disk: one factor at one size, one JSON file.

``results/studies/rooms-probe/probe-BASE.json`` says which pieces belong to the model that began as that policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zk0.evaluation.outcomes import Outcomes
from zk0.evaluation.paired import Difference, Estimate, difference, rate
from zk0.files import write_json
from zk0.records.base import Machine
from zk0.study.nights_store import Successes, outcomes
from zk0.study.results_store import PieceFolder, Stored, checked

NAME = "rooms-probe"
OWN, TOGETHER = "own room", "all together"
FULL = 1.0  # as far as rooms go


class ProbePiece(Stored):
    """A model where one factor, or all, is as in rooms that it has not seen.

    Attributes:
        seed: Training seed of the model.
        factor: One of :data:`zk0.data.sim.rooms.FACTORS`, ``TOGETHER``, or ``OWN``.
        size: Of it, as a multiple of how far rooms go; 0 of the own room.
        digest: Of all that decides the figures.
        successes: Task to scene to success; the n-th scene of every task is in the n-th room.
        seconds: Of the rollouts.
        created: When, ISO 8601.
        machine: Where.
    """

    seed: int
    factor: str
    size: float
    digest: str
    successes: Successes
    seconds: float
    created: str
    machine: Machine


class ProbeRecord(Stored):
    """What belongs together: all pieces of one model.

    Attributes:
        command: Makes or completes it.
        quick: Whether it was run at small sizes.
        base: Policy that the federation began with, as params name it.
        seed: Training seed.
        scenes: First scene and number of scenes of every task.
        rooms: First room's number; there are as many as scenes.
        tasks: The owners'.
        files: Factor to size to the piece's file.
        params: That the federation had.
        results_version: See :data:`zk0.digests.RESULTS_VERSION`.
    """

    command: str
    quick: bool
    base: str
    seed: int
    scenes: tuple[int, int]
    rooms: int
    tasks: tuple[str, ...]
    files: dict[str, dict[float, str]]
    params: dict[str, Any]
    results_version: int


@dataclass(frozen=True)
class ProbeResult:
    """A model's pieces, as far as they are made.

    Attributes:
        record: What belongs together.
        pieces: By factor and size.
    """

    record: ProbeRecord
    pieces: dict[tuple[str, float], ProbePiece]

    @property
    def missing(self) -> int:
        """Pieces that are still to be made."""
        return sum(map(len, self.record.files.values())) - len(self.pieces)

    @property
    def factors(self) -> list[str]:
        """Those of which some piece is made, what costs most at full size first, and then all together."""
        made = {factor: 0.0 for factor, _ in self.pieces if factor not in (OWN, TOGETHER)}
        for factor in made:
            found = self.rate(factor, FULL)
            made[factor] = found.value if found else 1.0
        together = [TOGETHER] if any(factor == TOGETHER for factor, _ in self.pieces) else []
        return [*sorted(made, key=lambda factor: made[factor]), *together]

    @property
    def sizes(self) -> list[float]:
        """All sizes but that of the own room."""
        return sorted({size for factor, by_size in self.record.files.items() if factor != OWN for size in by_size})

    def rate(self, factor: str, size: float) -> Estimate | None:
        """Success on all tasks, with an interval clustered by scene and so by room; None where it was not run."""
        found = self._outcomes(factor, size)
        return rate(found) if found else None

    def change(self, factor: str, size: float) -> Difference | None:
        """Success less that in the own room, on the same scenes; None where either was not run."""
        there, own = self._outcomes(factor, size), self._outcomes(OWN, 0.0)
        return difference(there, own) if there and own else None

    def _outcomes(self, factor: str, size: float) -> Outcomes | None:
        piece = self.pieces.get((factor, size))
        return outcomes({piece.seed: piece.successes}, list(self.record.tasks)) if piece else None


@dataclass(frozen=True)
class ProbeFolder(PieceFolder[ProbePiece]):
    """``results/studies/rooms-probe``."""

    kind: type[ProbePiece] = ProbePiece

    def describe(self, record: ProbeRecord) -> None:
        """Say what belongs together."""
        write_json(self.folder / f"probe-{slug(record.base)}.json", record.model_dump(mode="json"))

    def results(self) -> Iterator[ProbeResult]:
        """Every model that was probed, by the name of its base.

        Raises:
            StageError: A file is damaged; says what to do.
        """
        for path in sorted(self.folder.glob("probe-*.json")):
            record = checked(ProbeRecord, path)
            files = {(factor, size): file for factor, found in record.files.items() for size, file in found.items()}
            pieces = {point: self.piece(file) for point, file in files.items()}
            yield ProbeResult(record, {point: piece for point, piece in pieces.items() if piece})


def slug(base: str) -> str:
    """A starting policy's name as part of a file's.

    >>> slug("models/nano-base")
    'models-nano-base'
    """
    return re.sub(r"[^A-Za-z0-9_.]+", "-", base)
