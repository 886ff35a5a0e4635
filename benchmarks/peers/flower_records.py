"""What a policy weighs in Flower's own records."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord


def record_bytes(*, base: str) -> dict[str, int]:
    """Bytes of a policy's weights as Flower sends them: ``all`` of them, and the ``trainable`` ones alone.

    Args:
        base: A starting policy, as params name it.
    """
    from zk0.policy.start import load_start
    from zk0.policy.trainable import trainable_tensors

    policy = load_start(Path(), base, "cpu").policy
    return {
        "all": _bytes(ArrayRecord(policy.state_dict())),
        "trainable": _bytes(ArrayRecord(trainable_tensors(policy))),
    }


def trainable_shapes(*, base: str, rank: int) -> dict[str, list[int]]:
    """Names and shapes of what a policy trains, in its order; with low-rank adapters where ``rank`` is above 0."""
    from zk0.policy.start import load_start

    policy = load_start(Path(), base, "cpu", lora_rank=rank).policy
    return {name: list(p.shape) for name, p in policy.named_parameters() if p.requires_grad}


def _bytes(record: ArrayRecord) -> int:
    return sum(len(array.data) for array in record.values())
