"""Pieces of a study on disk: one arm, one training seed, one JSON file that is there as a whole or not at all.

``results/studies/NAME/study.json`` says which arms, seeds and scenes belong together and which file is whose;
files of other params, or of an earlier state of zk0, may lie beside them and do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.records.base import Machine
from zk0.records.results import Role, TaskScore
from zk0.settings import Section
from zk0.words import fault

STUDIES = Path("results/studies")
RECORD = "study.json"


class Stored(Section):
    """What a study keeps: frozen, and nothing beside what is described."""


class TaskResult(Stored):
    """A model on one task.

    Attributes:
        role: ``site`` if some site has this task, else ``unseen``.
        outcomes: Scene seed to success; empty without a simulator.
        raw_success_rate: On the same scenes with no step cut; None of pieces made before, which were all driven so.
        held_out_loss: Flow-matching loss in the model's own normalisation: comparable only between arms that share it.
        action_error_deg: Mean absolute error over the arm's joints.
        action_error_by_joint: By joint, in LeRobot's units.
        episode_error_deg: Held-out episode to mean error.
    """

    role: Role
    outcomes: dict[int, bool]
    raw_success_rate: float | None = None
    held_out_loss: float
    action_error_deg: float
    action_error_by_joint: dict[str, float]
    episode_error_deg: dict[int, float]

    @classmethod
    def of(cls, role: Role, score: TaskScore) -> TaskResult:
        """What a study keeps of a score: all that the other figures can be computed from."""
        return cls.model_validate(
            {
                "role": role,
                "outcomes": score.outcomes,
                "raw_success_rate": score.raw_success_rate,
                "held_out_loss": score.held_out_loss,
                "action_error_deg": score.action_error_deg,
                "action_error_by_joint": score.action_error_deg_by_joint,
                "episode_error_deg": score.episode_errors_deg,
            }
        )


class Piece(Stored):
    """One arm with one training seed.

    Attributes:
        arm, seed: Whose; the seed of an arm that trains nothing is 0.
        digest: Of all that decides the figures.
        steps, samples, train_s, bytes, best, losses, epsilon: See :class:`zk0.study.training.Cost`.
        evaluate_s: Seconds of judging.
        trainable: Number of parameters that train.
        episodes: Episodes trained on.
        tasks: Figures by task.
        created: When, ISO 8601.
        machine: Where.
        versions: Of the packages that matter.
    """

    arm: str
    seed: int
    digest: str
    steps: int = Field(ge=0)
    samples: int = Field(ge=0)
    train_s: float = Field(ge=0)
    evaluate_s: float = Field(ge=0)
    bytes: int = Field(ge=0)
    best: int = Field(ge=0)
    losses: tuple[float, ...]
    epsilon: float | None
    trainable: int = Field(ge=0)
    episodes: int = Field(ge=0)
    tasks: dict[str, TaskResult]
    created: str
    machine: Machine
    versions: dict[str, str]


class ArmRecord(Stored):
    """An arm as a study's record tells it, with its pieces' files by training seed."""

    name: str
    kind: str
    about: str
    site: str | None
    attack: str | None
    changes: dict[str, object]
    share: float
    episodes: int | None = None
    from_global: bool = False
    files: dict[int, str]


class StudyRecord(Stored):
    """What belongs together.

    Attributes:
        name, title, about: Of the study.
        command: Makes or completes it.
        quick: Whether it was run at small sizes.
        seeds: Training seeds.
        scenes: First scene seed and number of scenes.
        arms: In the order in which they are shown.
        params: The params that all arms share; paths as they were written.
        results_version: The state of zk0 that its pieces are of, see :data:`zk0.digests.RESULTS_VERSION`.
    """

    name: str
    title: str
    about: str
    command: str
    quick: bool
    seeds: tuple[int, ...]
    scenes: tuple[int, int]
    arms: tuple[ArmRecord, ...]
    params: dict[str, Any]
    results_version: int = 1


@dataclass(frozen=True)
class PieceFolder[P: Stored]:
    """A study's folder, with its pieces.

    Attributes:
        folder: ``results/studies/NAME``.
        kind: What its pieces are.
    """

    folder: Path
    kind: type[P]

    def piece(self, file: str) -> P | None:
        """A piece by its file's name; None where it is not there yet.

        Raises:
            StageError: It is damaged; says what to do.
        """
        path = self.folder / "pieces" / file
        return checked(self.kind, path) if path.exists() else None

    def write(self, file: str, piece: P) -> None:
        """Keep a piece under its file's name."""
        write_json(self.folder / "pieces" / file, piece.model_dump(mode="json", exclude_unset=True))


@dataclass(frozen=True)
class StudyFolder(PieceFolder[Piece]):
    """The folder of a study that compares arms."""

    kind: type[Piece] = Piece

    def adopt(self, file: str) -> Piece | None:
        """A piece that another study of the project has made, copied into this one; None where none has.

        The file's name holds the digest of all that decides the figures, so it serves both.

        Raises:
            StageError: It is damaged; says what to do.
        """
        for path in sorted(self.folder.parent.glob(f"*/pieces/{file}")):
            found = checked(Piece, path)
            self.write(file, found)
            return found
        return None

    def describe(self, record: StudyRecord) -> StudyRecord | None:
        """Say what belongs together.

        Returns:
            What did so before, where that is of another state of zk0: it is kept beside, and its pieces stay.
        """
        before = self.record() if (self.folder / RECORD).exists() else None
        if before is not None and before.results_version != record.results_version:
            (self.folder / RECORD).rename(self.folder / f"study-results-{before.results_version}.json")
        else:
            before = None
        write_json(self.folder / RECORD, record.model_dump(mode="json"))
        return before

    def record(self) -> StudyRecord:
        """What belongs together.

        Raises:
            StageError: The study was not run, or its record is damaged.
        """
        path = self.folder / RECORD
        if not path.exists():
            raise StageError(f"{path} not found; `zk0 study {self.folder.name}` writes it")
        return checked(StudyRecord, path)

    def pieces(self, record: StudyRecord) -> Iterator[tuple[ArmRecord, dict[int, Piece]]]:
        """The arms and their pieces by training seed, as far as they are made."""
        for arm in record.arms:
            found = {seed: self.piece(file) for seed, file in arm.files.items()}
            yield arm, {seed: piece for seed, piece in found.items() if piece is not None}


def checked[M: Stored](kind: type[M], path: Path) -> M:
    """Read what a study keeps.

    Raises:
        StageError: It is damaged; says what to do.
    """
    try:
        return kind.model_validate(read_json(path))
    except (ValidationError, ValueError) as error:
        told = fault(error) if isinstance(error, ValidationError) else str(error)
        raise StageError(f"{path} is damaged ({told}); delete it and run the study again") from error
