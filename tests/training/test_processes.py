"""Processes that share a site's training: the steps of one, and nobody left behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
import torch
from federated_sites import BASE, copy_project

from zk0.data.frames import Frames
from zk0.errors import StageError
from zk0.federation.engine import engine_for
from zk0.federation.run import run_federation
from zk0.federation.site import forget
from zk0.params import Params, TrainingParams, with_changes
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.trainable import Tensors, trainable_tensors
from zk0.training import local, processes
from zk0.training.local import LocalTask, train_locally

pytestmark = pytest.mark.services

# Five frames: shares of three and two, some of whose actions lie past an episode's end.
SETTINGS = TrainingParams(local_steps=1, batch=5, warmup_steps=0, learning_rate=1e-3, keep_moments=True)
ALONE = LocalTask(seed=1, partition=0, round=1, training=SETTINGS, decay_steps=6, proximal_mu=0.1)
TWO = replace(ALONE, processes=2)

# The two compute the same sums of float32 in another order. A loss shows that as it is. Adam divides a gradient by its
# own size, so a number whose gradient is hardly more than rounding moves as far as any other, and may go the other way.
LOSS, UPDATE = 1e-5, 1e-2


def distance(tensors: Tensors, others: Tensors) -> float:
    return math.sqrt(sum(float((tensors[name] - others[name]).double().square().sum()) for name in others))


def children() -> list[psutil.Process]:
    """Other processes that train."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture(autouse=True, scope="module")
def _nobody_is_left() -> Iterator[None]:
    yield
    processes.dismiss()
    assert not children() and not torch.distributed.is_initialized()


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
        print(loss, expected, distance(tensors, there), distance(there, start))
        assert loss == pytest.approx(expected, rel=LOSS)
        assert distance(tensors, there) <= UPDATE * distance(there, start)


def test_one_that_ends_is_told_of_and_replaced(
    loaded: LoadedPolicy, frames: Frames, start: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(TWO, training=SETTINGS.model_copy(update={"local_steps": 4}))
    expected = train_locally(loaded, frames, start, task).loss
    (other,) = children()
    rate = local.learning_rate

    def ending(step: int, *rest: Any) -> float:
        if step == 2:
            other.kill()
        return rate(step, *rest)

    with monkeypatch.context() as patched, pytest.raises(StageError, match="shared the site's training ended: exit"):
        patched.setattr(local, "learning_rate", ending)
        train_locally(loaded, frames, start, task)
    left = children()

    def stopping(step: int, *rest: Any) -> NoReturn:
        raise KeyboardInterrupt

    assert train_locally(loaded, frames, start, task).loss == expected
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(local, "learning_rate", stopping)
        train_locally(loaded, frames, start, task)
    assert not left and not children()


def test_a_federated_round_is_that_of_one(prepared: Path, small_params: Params, tmp_path: Path) -> None:
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

    (alone, expected, kept), (shared, tensors, also) = trained
    assert alone != shared and kept == also and len(kept) == 4
    print(distance(tensors, expected), distance(expected, {n: torch.zeros_like(t) for n, t in expected.items()}))
