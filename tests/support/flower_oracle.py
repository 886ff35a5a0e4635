"""Flower's own strategies, driven with real messages: what ours are tested against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from zk0.policy.trainable import Tensors


def arrays_of(tensors: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """Tensors as Flower's arrays."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})


def aggregate(
    strategy: FedAvg, number: int, start: Tensors, deltas: Sequence[Tensors], weights: Sequence[float] | None = None
) -> Tensors:
    """The model that a strategy makes of the sites' models in round ``number``, counted from 1."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0  # what a running ServerApp would have
    replies = []
    for delta, weight in zip(deltas, weights or [1.0] * len(deltas), strict=True):
        model = arrays_of({name: start[name] + delta[name] for name in start})
        content = RecordDict({"arrays": model, "metrics": MetricRecord({"num-examples": weight})})
        replies.append(Message(content, dst_node_id=1, message_type="train"))
    arrays, _ = strategy.aggregate_train(number, replies)
    assert arrays is not None
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in arrays.items()}
