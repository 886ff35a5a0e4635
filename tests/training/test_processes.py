"""Processes that share a site's training: the steps of one, and nobody left behind."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from federated_sites import BASE, copy_project
from torch import nn

from zk0.data.frames import Frames
from zk0.errors import StageError
from zk0.federation.engine import engine_for
from zk0.federation.run import run_federation
from zk0.federation.site import forget
from zk0.params import Params, TrainingParams, with_changes
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.trainable import Tensors, trainable_tensors
from zk0.training import local
from zk0.training.local import LocalTask, train_locally
from zk0.training.optimizer import learning_rate
from zk0.training.processes import team_for

# Five frames: shares of three and two, some of whose actions lie past an episode's end.
SETTINGS = TrainingParams(local_steps=1, batch=5, warmup_steps=0, learning_rate=1e-3, keep_moments=True)
ALONE = LocalTask(seed=1, partition=0, round=1, training=SETTINGS, decay_steps=6, proximal_mu=0.1)
TWO = replace(ALONE, processes=2)

# The two compute the same sums of float32 in another order. A loss shows that as it is. Adam divides a gradient by its
# own size, so a number whose gradient is hardly more than rounding moves as far as any other, and may go the other way.
LOSS, UPDATE = 1e-5, 1e-3


def distance(tensors: Tensors, others: Tensors) -> float:
    return math.sqrt(sum(float((tensors[name] - others[name]).double().square().sum()) for name in others))


def children() -> list[psutil.Process]:
    """Other processes that train."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


class OnApple(nn.Module):
    """A policy on a GPU that every Mac has one of, and no more."""

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        yield SimpleNamespace(device=torch.device("mps"))


def test_fewer_gpus_than_processes_are_told_of() -> None:
    with pytest.raises(StageError, match=r"policy.processes is 2, and each needs a GPU of its own, but .* has 1"):
        team_for(OnApple(), 2)


@pytest.mark.services
def test_two_take_the_steps_of_one(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    """Three rounds of a step each: every loss, and moments that are carried on; the others stay the same."""

    def rounds(task: LocalTask) -> Iterator[tuple[float, Tensors]]:
        tensors, moments = start, None
        for number in (1, 2, 3):
            result = train_locally(loaded, frames, tensors, replace(task, round=number), None, moments)
            tensors, moments = result.tensors, result.moments
            yield result.loss, tensors

    shared = list(rounds(TWO))
    others = children()
    alone = list(rounds(ALONE))

    assert len(others) == 1
    for (loss, tensors), (expected, there) in zip(shared, alone, strict=True):
        assert loss == pytest.approx(expected, rel=LOSS)
        assert distance(tensors, there) <= UPDATE * distance(there, start)


@pytest.mark.services
def test_ctrl_c_ends_the_other_and_one_that_ends_is_told_of(
    loaded: LoadedPolicy, frames: Frames, start: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(TWO, training=SETTINGS.model_copy(update={"local_steps": 4}))
    threads, variables = torch.get_num_threads(), dict(os.environ)

    def at_step_two(act: Callable[[], None]) -> None:
        def rate(step: int, *rest: Any) -> float:
            if step == 2:
                act()
            return learning_rate(step, *rest)

        monkeypatch.setattr(local, "learning_rate", rate)
        train_locally(loaded, frames, start, task)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job starts without
    with pytest.raises(KeyboardInterrupt):
        at_step_two(lambda: signal.raise_signal(signal.SIGINT))
    stopped = children()
    with pytest.raises(StageError, match="a process that shared the site's training ended: exit code -9"):
        at_step_two(lambda: children()[0].kill())

    assert not stopped and not children()
    assert threads == torch.get_num_threads() and variables == dict(os.environ)


@pytest.mark.services
def test_a_federated_round_is_that_of_one(prepared: Path, small_params: Params, start: Tensors, tmp_path: Path) -> None:
    """With a codec's error and moments kept, which only the site's own process does."""
    changes = {"federation.rounds": 1, "federation.uplink": "int8", "training.keep_moments": True}
    params, trained = with_changes(small_params, changes), []
    for count in (1, 2):
        root = copy_project(prepared, tmp_path / str(count))
        forget()
        counted = with_changes(params, {"policy.processes": count})
        with engine_for(root, counted, 2) as grid:
            run = run_federation(grid, root, counted, BASE)
        own = trainable_tensors(load_checkpoint(root / "checkpoints/last").policy)
        kept = sorted(path.name for path in (root / "state" / run.run / "sites").rglob("*.safetensors"))
        trained.append((run.run, own, kept))
    forget()
    assert not children() and not torch.distributed.is_initialized()

    (alone, expected, kept), (shared, tensors, also) = trained
    assert alone != shared and kept == also and len(kept) == 4
    moved = distance(expected, start)
    assert 0 < distance(tensors, expected) <= UPDATE * moved
