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

from safetensors.torch import load_file, save_file

from zk0.errors import StageError
from zk0.files import read_json, replaced_folder, write_json
from zk0.policy.trainable import Tensors, digest_tensors

_TENSORS = "trainable.safetensors"
_MORE = ("residual", "optimizer")
_STATE = "state.json"


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
        with replaced_folder(self._path(state.round)) as temporary:
            save_file(state.tensors, temporary / _TENSORS)
            for name in _MORE:
                if tensors := getattr(state, name):
                    save_file(tensors, temporary / f"{name}.safetensors")
            record = {
                "round": state.round,
                "rows": list(state.rows),
                "stats": state.stats,
                "resumed": list(state.resumed),
                "used": {str(partition): number for partition, number in state.used.items()},
                "privacy": state.privacy,
                "digest": digest_tensors(state.tensors),
            }
            write_json(temporary / _STATE, record)
        for number in self._rounds():
            if number not in (state.round, state.best_round):
                shutil.rmtree(self._path(number))

    def load_last(self) -> RoundState | None:
        """The last complete round, marked as resumed, or None if there is none.

        Raises:
            ValueError: The tensors are not those that were saved.
        """
        rounds = self._rounds()
        if not rounds:
            return None
        state = self.load(rounds[-1])
        return replace(state, resumed=(*state.resumed, state.round))

    def load(self, number: int) -> RoundState:
        """A round that was kept."""
        path = self._path(number)
        record = read_json(path / _STATE)
        tensors = load_file(path / _TENSORS)
        if (found := digest_tensors(tensors)) != record["digest"]:
            raise ValueError(
                f"{path / _TENSORS} has digest {found}, but {record['digest']} was saved; delete {path} to go on "
                "from an earlier round"
            )
        more = {name: load_file(file) for name in _MORE if (file := path / f"{name}.safetensors").exists()}
        return RoundState(
            record["round"],
            tensors,
            tuple(record["rows"]),
            record["stats"],
            tuple(record["resumed"]),
            used={int(partition): number for partition, number in record["used"].items()},
            privacy=record.get("privacy", {}),
            **more,
        )

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}"

    def _rounds(self) -> list[int]:
        return sorted(int(p.name.removeprefix("round-")) for p in self.folder.glob("round-*") if p.is_dir())


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
