"""What one federated run left behind, checked for belonging together before it is projected into MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from zk0.digests import digest_folder, quick_digest
from zk0.files import read_json
from zk0.records.base import Checkpoint
from zk0.records.files import read, read_rounds
from zk0.records.paths import BENCHMARK, EVALUATION, REPORT, ROUNDS, RUN
from zk0.records.results import Benchmark, Evaluation
from zk0.records.run import Round, Run
from zk0.tracking import FILES, VIDEOS, TrackingError


@dataclass(frozen=True)
class Results:
    """What one federated run left behind.

    Attributes:
        root: The project's root, with the MLflow store.
        place: Folder in which the run's files lie: the root, or a training's below it.
        run: The run as a whole.
        digest: Of run.json's content. With ``run.run``, the params' digest, it names the run:
            the same params trained again are another run.
        rounds: From round 0 on.
        evaluation: That of this run's best model, if it was judged.
        benchmark: What was measured after this run began, if anything was.
        report: The report, if it can show this run: it is written after the evaluation.
        skipped: Why a file that is there was left out.
    """

    root: Path
    place: Path
    run: Run
    digest: str
    rounds: tuple[Round, ...]
    evaluation: Evaluation | None
    benchmark: Benchmark | None
    report: Path | None
    skipped: tuple[str, ...]

    @property
    def started_ms(self) -> int:
        """When the run began, in milliseconds since 1970."""
        return milliseconds(self.run.started)

    @property
    def ended_ms(self) -> int:
        """When it ended, in milliseconds since 1970."""
        return milliseconds(self.run.ended)

    def files(self) -> Iterator[tuple[Path, str | None]]:
        """The files that are kept with the run, and their folder among its artifacts."""
        yield from ((RUN, FILES), (ROUNDS, FILES))
        if self.evaluation is not None:
            yield EVALUATION, FILES
            films = [Path(video.file) for video in self.evaluation.videos]
            yield from ((film, VIDEOS) for film in films if (self.place / film).is_file())
        if self.benchmark is not None:
            yield BENCHMARK, FILES
        if self.report is not None:
            yield REPORT, None

    def checkpoint(self, which: Literal["best", "last"]) -> Checkpoint:
        """Path, digest and round of one of the two checkpoints."""
        return self.run.checkpoints.best if which == "best" else self.run.checkpoints.last

    def checkpoint_folder(self, which: Literal["best", "last"]) -> Path:
        """The checkpoint's folder, after making sure that it holds the weights of this run.

        Raises:
            TrackingError: It is missing, or belongs to another run.
        """
        named = self.checkpoint(which)
        folder = self.place / named.path
        if not folder.is_dir():
            raise TrackingError(f"{named.path} is missing; `zk0 federate` (or `dvc checkout`) brings it back")
        if (found := digest_folder(folder)) != named.digest:
            raise TrackingError(
                f"{named.path} has digest {found}, but {RUN} says {named.digest}: "
                "the two are of different runs; `dvc checkout` or `zk0 federate` makes them agree"
            )
        return folder


def milliseconds(iso: str) -> int:
    """Milliseconds since 1970 of an ISO time; one without a zone is taken as UTC."""
    time = datetime.fromisoformat(iso)
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def read_results(root: Path, place: Path | None = None) -> Results:
    """Read a run's result files.

    Args:
        root: The project's root.
        place: Folder with ``results/`` and ``checkpoints/``, the root or below it; None is the root.

    Raises:
        RecordError: A file is missing, cut short or lacks something.
        TrackingError: Rounds and run contradict each other.
    """
    place = place or root
    run, rounds = read(place, Run), tuple(read_rounds(place))
    numbers = [one.round for one in rounds]
    if numbers != list(range(run.rounds + 1)):
        raise TrackingError(
            f"{ROUNDS} holds rounds {numbers}, but {RUN} tells of rounds 0 to {run.rounds}; run `zk0 federate` again"
        )
    skipped = []
    evaluation = read(place, Evaluation) if (place / EVALUATION).exists() else None
    if evaluation is not None and evaluation.models.trained.digest != run.checkpoints.best.digest:
        skipped.append(f"{EVALUATION} judges another model; `zk0 evaluate` renews it")
        evaluation = None
    report = place / REPORT if (place / REPORT).exists() else None
    if report is not None and evaluation is None:
        skipped.append(f"{REPORT} is older than this run's evaluation; `zk0 report` renews it")
        report = None
    benchmark = read(place, Benchmark) if (place / BENCHMARK).exists() else None
    if benchmark is not None and milliseconds(benchmark.created) < milliseconds(run.started):
        skipped.append(f"{BENCHMARK} was measured before this run began; `zk0 benchmark` renews it")
        benchmark = None
    digest = quick_digest(read_json(place / RUN))
    return Results(root, place, run, digest, rounds, evaluation, benchmark, report, tuple(skipped))
