"""What training gave: a model and what it cost, kept until it is judged."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from zk0.errors import StageError
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import RECORD, DamagedError, Tensors, read_kept, write_kept

_TENSORS = "trainable"


@dataclass(frozen=True)
class Cost:
    """What it took.

    Attributes:
        steps: Optimiser steps of one site; of all of them where there is one place.
        samples: Frames drawn into batches, by all together.
        seconds: Of training, with the held-out losses that chose the best checkpoint.
        bytes: Sent and received by all sites together.
        best: The checkpoint that counts, 1 for the first of ``losses``; 0 where nothing was trained.
        losses: Mean held-out loss of every checkpoint; with noise where a private federation told it.
        epsilon: Spent, where it was private.
    """

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    bytes: int = 0
    best: int = 0
    losses: tuple[float, ...] = ()
    epsilon: float | None = None


@dataclass(frozen=True)
class Trained:
    """A model.

    Attributes:
        tensors: The policy's trainable tensors.
        stats: Its normalisation; None = the base's own.
        cost: Of getting it.
    """

    tensors: Tensors
    stats: Stats | None
    cost: Cost

    def save(self, folder: Path) -> None:
        """Write it, atomically."""
        stats = self.stats and {f: {k: v.tolist() for k, v in values.items()} for f, values in self.stats.items()}
        write_kept(folder, {"stats": stats, "cost": asdict(self.cost)}, {_TENSORS: self.tensors})

    @classmethod
    def load(cls, folder: Path) -> Trained | None:
        """Read it; None where there is none.

        Raises:
            StageError: It is damaged; says what is.
        """
        if not (folder / RECORD).exists():
            return None
        try:
            about, parts = read_kept(folder)
        except DamagedError as error:
            raise StageError(f"{error}. Delete {folder} to train anew") from error
        stats = about["stats"] and {
            feature: {name: np.array(value, dtype=np.float32) for name, value in values.items()}
            for feature, values in about["stats"].items()
        }
        cost = {field.name: about["cost"][field.name] for field in fields(Cost)}
        return cls(parts.get(_TENSORS, {}), stats, Cost(**cost | {"losses": tuple(cost["losses"])}))
