"""What server and sites must remember to go on after a kill, saved after each round in one step.

The server's is the whole federation after a round, :class:`RoundState`. A site's (:class:`SiteMemory`) is its codec's
error and, if asked for, its optimiser's moments. It cannot know whether its update was averaged: a reply may come too
late, or a server that was killed takes a round up again. So what belongs to an update is a version named by the round,
and every task says which one to go on from: that of the last update that was used. One that nobody can ask for any more
is deleted; where the one asked for is missing, the site begins anew.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from zk0.errors import StageError
from zk0.federation.history import History
from zk0.federation.privacy.central import Remembered
from zk0.federation.statistics import Moments
from zk0.policy.trainable import DamagedError, Tensors, digest_tensors, read_kept, write_kept
from zk0.records.run import Round

_TENSORS = "trainable"


@dataclass(frozen=True)
class RoundState:
    """The federation after a round.

    Attributes:
        round: Rounds completed.
        tensors: The global model's trainable tensors, as every site has them.
        rounds: All so far, round 0 first; of earlier ones as much as :func:`.history.in_brief` leaves.
        stats: Moments of all sites, merged, as lists; the normalisation follows from them.
        resumed: Rounds after which the run was taken up again.
        residual: What the downlink's codec could not carry of the model; it is added to the next.
        optimizer: Moments of the server's optimiser.
        used: Partition to the last round in which its update was averaged, from whose version the site goes on.
        privacy: What central privacy is to remember.
    """

    round: int
    tensors: Tensors
    rounds: tuple[Round, ...]
    stats: Mapping[str, float | list[float]]
    resumed: tuple[int, ...] = ()
    residual: Tensors = field(default_factory=dict)
    optimizer: Tensors = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    privacy: Remembered = field(default_factory=Remembered)

    @property
    def digest(self) -> str:
        """The digest of ``tensors``."""
        return self.rounds[-1].digest or digest_tensors(self.tensors)

    @property
    def best_round(self) -> int:
        """The round with the lowest held-out loss; the first of several. Round 0 is no candidate."""
        trained = [row for row in self.rounds if row.round > 0]
        return min(trained, key=lambda row: row.held_out_loss).round if trained else 0

    def moments(self) -> Moments:
        """The sites' merged moments."""
        return Moments(**{name: np.asarray(value, dtype=np.float64) for name, value in self.stats.items()})


@dataclass
class StateFolder:
    """States of one configuration: ``state/<config digest>/round-0003``.

    Attributes:
        folder: Named by the configuration's digest, so another configuration never resumes here.
    """

    folder: Path

    def __post_init__(self) -> None:
        self._history = History(self.folder / "rounds.jsonl")

    def rows(self, state: RoundState) -> Iterator[Round]:
        """All that the rounds of a state tell that was saved or loaded here, one after the other."""
        return self._history.read(len(state.rounds))

    def save(self, state: RoundState) -> None:
        """Write a round's state; then drop all but the last and the best."""
        record = {
            "round": state.round,
            "rows": len(state.rounds),
            "rows_digest": self._history.extend(state.rounds),
            "stats": state.stats,
            "resumed": list(state.resumed),
            "used": {str(partition): number for partition, number in state.used.items()},
            "privacy": state.privacy,
        }
        parts = {_TENSORS: state.tensors, "residual": state.residual, "optimizer": state.optimizer}
        write_kept(_path(self.folder, state.round), record, parts, {_TENSORS: state.digest})
        for number in _rounds(self.folder).keys() - {state.round, state.best_round}:
            shutil.rmtree(_path(self.folder, number))

    def load_last(self) -> RoundState | None:
        """The last complete round, marked as resumed, or None if there is none.

        The best one is looked at too: that it cannot be exported is told now, and not after the last round.

        Raises:
            StageError: One of them is damaged; says what is, and what to delete to go on.
        """
        rounds = _rounds(self.folder)
        if not rounds:
            return None
        state = self.load(max(rounds))
        if state.best_round != state.round:
            self.load(state.best_round)
        return replace(state, resumed=(*state.resumed, state.round))

    def load(self, number: int) -> RoundState:
        """A round that was kept.

        Raises:
            StageError: See :meth:`load_last`.
        """
        try:
            record, parts, rows = self._read(number)
        except DamagedError as error:
            raise StageError(f"{error}. {self._advice(number)}") from error
        used = {int(partition): number for partition, number in record["used"].items()}
        more = {"used": used, "privacy": record["privacy"], **parts}
        tensors = more.pop(_TENSORS, {})
        return RoundState(record["round"], tensors, rows, record["stats"], tuple(record["resumed"]), **more)

    def _read(self, number: int) -> tuple[dict[str, Any], dict[str, Tensors], tuple[Round, ...]]:
        path = _path(self.folder, number)
        record, parts = read_kept(path)
        if "rows_digest" not in record:
            raise DamagedError(f"{path} was written by an earlier zk0, which kept rounds' rows in it")
        return record, parts, self._history.in_brief(record["rows"], record["rows_digest"])

    def _is_sound(self, number: int) -> bool:
        with suppress(DamagedError):
            return bool(self._read(number))
        return False

    def _advice(self, number: int) -> str:
        """What to do where a round's state is damaged. Nothing else is ever deleted: what privacy spent stays noted."""
        rounds = _rounds(self.folder)
        sound = [other for other in rounds if other < number and self._is_sound(other)]
        if sound and number == max(rounds):
            return f"Round {sound[-1]} is kept whole: delete {rounds[number]} to go on from there"
        kept = (
            "No other round to go on from is kept" if number == max(rounds) else f"Round {number} was the best so far"
        )
        return f"{kept}: delete {self.folder / 'round-*'} to begin the run anew"


class Saver:
    """Saves states behind the rounds' back, one at a time, in order.

    A state's tensors are never written to once it exists, so the next round may run meanwhile. At
    most one state is being saved: a kill costs at most the round in progress and the one before.

    Use as a context: leaving it, also by an exception or Ctrl-C, waits for the save in progress.

    Args:
        states: Where to.
        after: Called, in the saving thread, with each state once it is saved, and the seconds taken.
    """

    def __init__(self, states: StateFolder, after: Callable[[RoundState, float], None]) -> None:
        self._states, self._after = states, after
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.used: dict[int, int] | None = None  # of the last state that a restart would find; None = there is none

    def save(self, state: RoundState) -> None:
        """Begin to save a state, once the one before is saved.

        Raises:
            StageError: An earlier save failed; says why.
        """
        self.wait()
        self._thread = threading.Thread(target=self._save, args=(state,), name=f"save-{state.round}")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the save in progress.

        Raises:
            StageError: It failed; says why.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise StageError(
                f"a round could not be saved below {self._states.folder}: {self._error}. Earlier rounds are kept; mend "
                "the cause and start it again to go on"
            ) from self._error

    def _save(self, state: RoundState) -> None:
        try:
            began = time.perf_counter()
            self._states.save(state)
            self.used = state.used
            self._after(state, time.perf_counter() - began)
        except BaseException as error:  # told to the rounds by wait()
            self._error = error

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()


@dataclass(frozen=True)
class Version:
    """What belongs to a site's update of one round.

    Attributes:
        residual: What the codec could not carry, by tensor name; empty where it is lossless.
        moments: The optimiser's, flat; empty where they are not kept.
        own: The tensors that the site shares with nobody, see :mod:`.home`.
    """

    residual: Tensors = field(default_factory=dict)
    moments: Tensors = field(default_factory=dict)
    own: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class SiteMemory:
    """The versions of one site in one run: ``state/<run>/sites/0003/round-0007``.

    Attributes:
        folder: The site's own; it never leaves the site.
    """

    folder: Path

    @classmethod
    def of(cls, root: Path, run: str, partition: int) -> SiteMemory:
        """The memory of a partition in a run."""
        return cls(root / "state" / run / "sites" / f"{partition:04d}")

    def version(self, number: int) -> Path:
        """Where the version of a round is, if there is one."""
        return _path(self.folder, number)

    def load(self, number: int) -> Version:
        """The version of a round; an empty one for round 0, or where it is missing.

        Raises:
            StageError: It is damaged; says what is, and what to delete.
        """
        if not (path := self.version(number)).exists():
            return Version()
        try:
            return Version(**read_kept(path)[1])
        except DamagedError as error:
            raise StageError(f"{error}. Delete {path} to begin without it") from error

    def last(self, most: int) -> int:
        """The last round up to one of which there is a version; 0 where there is none."""
        return max((number for number in _rounds(self.folder) if number <= most), default=0)

    def save(self, number: int, version: Version) -> None:
        """Keep a round's version, in place of one from an earlier attempt at the same round."""
        if version == Version():
            shutil.rmtree(self.version(number), ignore_errors=True)
        else:
            write_kept(self.version(number), {"round": number}, vars(version))

    def prune(self, keep: int) -> None:
        """Delete versions before round ``keep``: the server cannot go back beyond it."""
        for number, path in _rounds(self.folder).items():
            if number < keep:
                shutil.rmtree(path)


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:04d}"


def _rounds(folder: Path) -> dict[int, Path]:
    """The rounds kept in a folder, in order; what is named otherwise, such as one moved aside, does not count."""
    named = {path: path.name.removeprefix("round-") for path in folder.glob("round-*") if path.is_dir()}
    numbers = {int(number): path for path, number in named.items() if number.isascii() and number.isdigit()}
    return dict(sorted(numbers.items()))
