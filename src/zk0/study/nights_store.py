"""Pieces of the study of nights on disk: one night of one week, one JSON file.

``results/studies/nights/week.json`` says which weeks belong together and which file is whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from pydantic import Field

from zk0.errors import StageError
from zk0.evaluation.outcomes import Outcomes
from zk0.files import write_json
from zk0.records.base import Machine
from zk0.study.results_store import PieceFolder, Stored, checked

WEEK = "week.json"
AT = "night.json"  # in a week's own project: `Begun`
Successes = dict[str, dict[int, bool]]  # task to scene to success


class Begun(TypedDict):
    """The night that a week's project is at."""

    night: int
    start: str | None  # its policy; None is the params'
    new: bool | None  # whether there is something to train on; None before that was asked


class NightPiece(Stored):
    """What came of a night; night 0 is the base, before the first.

    Attributes:
        seed, night: Whose, and which.
        digest: Of all that decides the figures.
        run: The federated run's id; empty where none was made.
        start: Digest of the policy that it started from.
        episodes: Of each site that took part, those trained on.
        unfit: Sites that were left out, and why.
        outcome: ``promoted``, ``refused`` or ``unchanged``.
        version: Under which the model is registered.
        against: What the gate compared it with.
        reasons: The gate's, against the model.
        gain: What the gate saw it gain on the sites' tasks, and at least; None where it could not compare.
        seconds: By stage: ``prepare``, ``federate``, ``evaluate``, ``track``, and ``night``, all that a nightly run
            does; beside it ``from base``, ``pooled`` and ``judge``, which this study does.
        bytes: Sent and received by all sites together.
        successes: On final scenes, of ``tonight``'s model, one federated ``from base`` and one ``pooled``; of night 0
            the ``base``'s.
    """

    seed: int
    night: int
    digest: str
    run: str = ""
    start: str = ""
    episodes: dict[str, int] = Field(default_factory=dict)
    unfit: dict[str, str] = Field(default_factory=dict)
    outcome: Literal["promoted", "refused", "unchanged"] = "unchanged"
    version: int | None = None
    against: str = ""
    reasons: tuple[str, ...] = ()
    gain: tuple[float, float] | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    bytes: int = 0
    successes: dict[str, Successes] = Field(default_factory=dict)
    created: str
    machine: Machine


class NightRecord(Stored):
    """A night as the record tells it; see :class:`zk0.study.week.Night`."""

    number: int
    event: str
    about: str
    share: float
    sites: tuple[str, ...]


class WeekRecord(Stored):
    """What belongs together.

    Attributes:
        command: Makes or completes it.
        quick: Whether it was run at small sizes.
        scenes: First final scene and number of scenes.
        nights: What befell the federation.
        tasks: The owners' tasks, each with the night by which what is forgotten of it is measured.
        files: Training seed to the pieces' files, from night 0 on.
        params: That all weeks share, before their seed.
        results_version: See :data:`zk0.digests.RESULTS_VERSION`.
    """

    command: str
    quick: bool
    scenes: tuple[int, int]
    nights: tuple[NightRecord, ...]
    tasks: dict[str, int]
    files: dict[int, tuple[str, ...]]
    params: dict[str, Any]
    results_version: int


@dataclass(frozen=True)
class NightsFolder(PieceFolder[NightPiece]):
    """``results/studies/nights``."""

    kind: type[NightPiece] = NightPiece

    def describe(self, record: WeekRecord) -> None:
        """Say what belongs together."""
        write_json(self.folder / WEEK, record.model_dump(mode="json"))

    def record(self) -> WeekRecord:
        """What belongs together.

        Raises:
            StageError: The study was not run, or its record is damaged.
        """
        if not (self.folder / WEEK).exists():
            raise StageError(f"{self.folder / WEEK} not found; `zk0 study nights` writes it")
        return checked(WeekRecord, self.folder / WEEK)

    def made(self, files: Sequence[str]) -> list[NightPiece]:
        """The pieces of a week, from night 0 to the first that is not there yet.

        Raises:
            StageError: One is damaged.
        """
        found: list[NightPiece] = []
        for piece in map(self.piece, files):
            if piece is None:
                break
            found.append(piece)
        return found


def champion_after(week: list[NightPiece], night: int) -> Successes:
    """What the model that an owner has after a night does on final scenes: the base's while none was promoted."""
    holder = next((p for p in reversed(week[: night + 1]) if p.outcome == "promoted"), week[0])
    return holder.successes["tonight" if holder.night else "base"]


def outcomes(by_seed: dict[int, Successes], tasks: list[str]) -> Outcomes:
    """Successes as outcomes that can be compared."""
    return Outcomes.of(
        {
            seed: {task: {scene: float(value) for scene, value in found[task].items()} for task in tasks}
            for seed, found in by_seed.items()
        }
    )
