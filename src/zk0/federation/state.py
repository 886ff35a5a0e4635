"""What a federation must remember to go on after a kill, saved after each round in one step."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from zk0.files import read_json, replaced_folder, write_json
from zk0.policy.trainable import Tensors, digest_tensors

_TENSORS = "trainable.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class RoundState:
    """The federation after a round.

    Attributes:
        round: Rounds completed.
        tensors: The global model's trainable tensors.
        rows: One record per round, round 0 first; ``rounds.jsonl``.
        stats: Moments of all sites, merged, as lists; the normalisation follows from them.
        resumed: Rounds after which the run was taken up again.
    """

    round: int
    tensors: Tensors
    rows: tuple[dict[str, Any], ...]
    stats: dict[str, Any]
    resumed: tuple[int, ...] = ()

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
    _kept: set[int] = field(default_factory=set)

    def save(self, state: RoundState) -> None:
        """Write a round's state; then drop all but the last and the best."""
        with replaced_folder(self._path(state.round)) as temporary:
            save_file(state.tensors, temporary / _TENSORS)
            record = {
                "round": state.round,
                "rows": list(state.rows),
                "stats": state.stats,
                "resumed": list(state.resumed),
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
        return RoundState(record["round"], tensors, tuple(record["rows"]), record["stats"], tuple(record["resumed"]))

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}"

    def _rounds(self) -> list[int]:
        return sorted(int(p.name.removeprefix("round-")) for p in self.folder.glob("round-*") if p.is_dir())
