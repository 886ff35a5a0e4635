"""What training gave: a model and what it cost, kept until it is judged."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from zk0.files import read_json, replaced_folder, write_json
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import Tensors, digest_tensors

_TENSORS = "trainable.safetensors"
_ABOUT = "trained.json"


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
        with replaced_folder(folder) as temporary:
            save_file(self.tensors, temporary / _TENSORS)
            stats = self.stats and {f: {k: v.tolist() for k, v in values.items()} for f, values in self.stats.items()}
            write_json(
                temporary / _ABOUT, {"digest": digest_tensors(self.tensors), "stats": stats, "cost": asdict(self.cost)}
            )

    @classmethod
    def load(cls, folder: Path) -> Trained | None:
        """Read it; None where there is none.

        Raises:
            ValueError: The tensors are not those that were saved.
        """
        if not (folder / _ABOUT).exists():
            return None
        about: dict[str, Any] = read_json(folder / _ABOUT)
        tensors = load_file(folder / _TENSORS)
        if (found := digest_tensors(tensors)) != about["digest"]:
            raise ValueError(
                f"{folder / _TENSORS} has digest {found}, but {about['digest']} was saved; "
                f"delete {folder} to train anew"
            )
        stats = about["stats"] and {
            feature: {name: np.array(value, dtype=np.float32) for name, value in values.items()}
            for feature, values in about["stats"].items()
        }
        cost = {field.name: about["cost"][field.name] for field in fields(Cost)}
        return cls(tensors, stats, Cost(**cost | {"losses": tuple(cost["losses"])}))
