"""Tensors that every site trains for itself and sends nothing of: ``federation.local``.

What belongs to an owner's room rather than to the task stays there, as normalisation layers do in Li et al., "FedBN:
Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021. SmolVLA's have no running statistics,
only gains. A site puts its own tensors into every global model that it trains from or judges, and its update says 0 of
them, so the global model keeps the starting policy's: that is what whoever joins later begins with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from zk0.errors import StageError
from zk0.federation.state import SiteMemory, Version
from zk0.policy.trainable import Tensors


def local_names(names: Collection[str], patterns: Sequence[str]) -> list[str]:
    """Which of the tensors that train are a site's own.

    Args:
        names: Of all that train.
        patterns: As a shell has them: ``*layernorm*``.

    Raises:
        StageError: A pattern matches none, or nothing is left to be shared.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise StageError(
                f"federation.local: no tensor that trains matches '{pattern}'; they are called as "
                f"{', '.join(sorted(names)[:3])}"
            )
    own = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if own and len(own) == len(names):
        raise StageError(
            f"federation.local {list(patterns)} matches all {len(own)} tensors that train: none are shared"
        )
    return own


@dataclass(frozen=True)
class Home:
    """A site's own tensors in one run, by round; they are few, and none is dropped.

    Attributes:
        memory: Where; below the memory of what belongs to the site's updates.
        patterns: ``federation.local``.
    """

    memory: SiteMemory
    patterns: Sequence[str]

    @classmethod
    def of(cls, memory: SiteMemory, patterns: Sequence[str]) -> Home:
        """Beside a site's memory of a run."""
        return cls(SiteMemory(memory.folder / "home"), patterns)

    def into(self, model: Tensors, number: int) -> Tensors:
        """A global model with the site's own tensors as they were after that round, or the last one before it."""
        return model | self.memory.load(self.memory.last(number)).own if self.patterns else model

    def keep(self, number: int, start: Tensors, update: Tensors) -> None:
        """Take the own tensors out of a round's update, which then says 0 of them."""
        own = {}
        for name in local_names(update, self.patterns):
            own[name] = start[name] + update[name]
            update[name] = torch.zeros_like(update[name])
        if own:
            self.memory.save(number, Version(own=own))
