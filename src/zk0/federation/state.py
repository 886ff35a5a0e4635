"""What a federation must remember to go on after a kill, saved after each round in one step."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from zk0.errors import StageError
from zk0.policy.trainable import DamagedError, Tensors, digest_tensors, read_kept, write_kept

_TENSORS = "trainable"


@dataclass(frozen=True)
class RoundState:
    """The federation after a round.

    Attributes:
        round: Rounds completed.
        tensors: The global model's trainable tensors, as every site has them.
        rows: One record per round, round 0 first; ``rounds.jsonl``.
        stats: Moments of all sites, merged, as lists; the normalisation follows from them.
        resumed: Rounds after which the run was taken up again.
        residual: What the downlink's codec could not carry of the model; it is added to the next.
        optimizer: Moments of the server's optimiser.
        used: Partition to the last round in which its update was averaged; a site's own residual
            and moments go on from that round's.
        privacy: The next clip norm, and what was spent; empty where privacy is not central.
    """

    round: int
    tensors: Tensors
    rows: tuple[dict[str, Any], ...]
    stats: dict[str, Any]
    resumed: tuple[int, ...] = ()
    residual: Tensors = field(default_factory=dict)
    optimizer: Tensors = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    privacy: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of ``tensors``."""
        return str(self.rows[-1].get("digest") or digest_tensors(self.tensors))

    @property
    def best_round(self) -> int:
        """The round with the lowest held-out loss; the first of several. Round 0 is no candidate."""
        trained = [row for row in self.rows if row["round"] > 0]
        return int(min(trained, key=lambda row: row["held_out_loss"])["round"]) if trained else 0


@dataclass
class StateFolder:
    """States of one configuration: ``state/<config digest>/round-0003``.

    Attributes:
        folder: Named by the configuration's digest, so another configuration never resumes here.
    """

    folder: Path

    def save(self, state: RoundState) -> None:
        """Write a round's state; then drop all but the last and the best."""
        record = {
            "round": state.round,
            "rows": list(state.rows),
            "stats": state.stats,
            "resumed": list(state.resumed),
            "used": {str(partition): number for partition, number in state.used.items()},
            "privacy": state.privacy,
        }
        parts = {_TENSORS: state.tensors, "residual": state.residual, "optimizer": state.optimizer}
        write_kept(self._path(state.round), record, parts, {_TENSORS: state.digest})
        for number in self._rounds():
            if number not in (state.round, state.best_round):
                shutil.rmtree(self._path(number))

    def load_last(self) -> RoundState | None:
        """The last complete round, marked as resumed, or None if there is none.

        The best one is looked at too: that it cannot be exported is told now, and not after the last round.

        Raises:
            StageError: One of them is damaged; says what is, and what to delete to go on.
        """
        rounds = self._rounds()
        if not rounds:
            return None
        state = self.load(rounds[-1])
        if state.best_round != state.round:
            self.load(state.best_round)
        return replace(state, resumed=(*state.resumed, state.round))

    def load(self, number: int) -> RoundState:
        """A round that was kept.

        Raises:
            StageError: See :meth:`load_last`.
        """
        try:
            record, parts = read_kept(self._path(number))
        except DamagedError as error:
            raise StageError(f"{error}. {self._advice(number)}") from error
        return RoundState(
            record["round"],
            parts.pop(_TENSORS, {}),
            tuple(record["rows"]),
            record["stats"],
            tuple(record["resumed"]),
            used={int(partition): number for partition, number in record["used"].items()},
            privacy=record["privacy"],
            **parts,
        )

    def _advice(self, number: int) -> str:
        """What to do where a round's state is damaged. Nothing else is ever deleted: what privacy spent stays noted."""
        rounds = self._rounds()
        sound = [other for other in rounds if other < number and self._is_sound(other)]
        if sound and number == rounds[-1]:
            return f"Round {sound[-1]} is kept whole: delete {self._path(number)} to go on from there"
        kept = "No other round to go on from is kept" if number == rounds[-1] else f"Round {number} was the best so far"
        return f"{kept}: delete {self._path(0).with_name('round-*')} to begin the run anew"

    def _is_sound(self, number: int) -> bool:
        try:
            read_kept(self._path(number))
        except DamagedError:
            return False
        return True

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}"

    def _rounds(self) -> list[int]:
        """What is named otherwise, such as a damaged one that somebody moved aside, does not count."""
        numbers = {path: path.name.removeprefix("round-") for path in self.folder.glob("round-*") if path.is_dir()}
        return sorted(int(number) for number in numbers.values() if number.isascii() and number.isdigit())


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
