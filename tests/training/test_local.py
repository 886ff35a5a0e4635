"""A site's local training."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from zk0.data.frames import Frames
from zk0.params import TrainingParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.trainable import TensorMismatch, Tensors, digest_tensors, trainable_tensors
from zk0.training.local import LocalTask, flow_draws, train_locally

SETTINGS = TrainingParams(local_steps=3, batch=4, warmup_steps=0, learning_rate=1e-3, final_learning_rate=1e-4)
TASK = LocalTask(seed=1, partition=0, round=1, training=SETTINGS, decay_steps=6)


def distance(tensors: Tensors, start: Tensors) -> float:
    return math.sqrt(sum(float((tensors[n] - start[n]).double().square().sum()) for n in start))


def test_training_repeats_itself_bit_by_bit(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    one = train_locally(loaded, frames, start, TASK)
    tensors = one.tensors
    again = train_locally(loaded, frames, start, TASK)

    assert digest_tensors(tensors) == digest_tensors(again.tensors) != digest_tensors(start)
    assert one.loss == again.loss
    assert one.examples == 3 * 4


def test_only_the_expert_changes_and_the_policy_holds_the_result(
    loaded: LoadedPolicy, frames: Frames, start: Tensors
) -> None:
    frozen = {n: p.detach().clone() for n, p in loaded.policy.named_parameters() if n not in start}

    result = train_locally(loaded, frames, start, TASK)

    assert result.tensors.keys() == start.keys()
    assert all(torch.equal(p, frozen[n]) for n, p in loaded.policy.named_parameters() if n in frozen)
    assert digest_tensors(trainable_tensors(loaded.policy)) == digest_tensors(result.tensors)
    assert not loaded.policy.training


@pytest.mark.parametrize("change", [{"seed": 2}, {"partition": 1}, {"round": 2}])
def test_other_batches_for_another_seed_site_or_round(
    loaded: LoadedPolicy, frames: Frames, start: Tensors, change: dict[str, int]
) -> None:
    task = replace(TASK, training=SETTINGS.model_copy(update={"local_steps": 1}))

    assert train_locally(loaded, frames, start, task).loss != (
        train_locally(loaded, frames, start, replace(task, **change)).loss  # type: ignore[arg-type]
    )


def test_loss_falls(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    steps = SETTINGS.model_copy(update={"local_steps": 12})
    first = train_locally(loaded, frames, start, replace(TASK, training=steps, decay_steps=24))
    second = train_locally(loaded, frames, first.tensors, replace(TASK, training=steps, decay_steps=24, round=2))

    assert second.loss < first.loss


def test_fedprox_without_mu_is_fedavg_and_with_it_stays_nearer(
    loaded: LoadedPolicy, frames: Frames, start: Tensors
) -> None:
    fedavg = train_locally(loaded, frames, start, TASK).tensors
    without = train_locally(loaded, frames, start, replace(TASK, proximal_mu=0.0)).tensors
    fedprox = train_locally(loaded, frames, start, replace(TASK, proximal_mu=100.0)).tensors

    assert digest_tensors(without) == digest_tensors(fedavg)
    assert distance(fedprox, start) < distance(fedavg, start)


def test_rate_counts_on_over_rounds(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    """Of six steps the last of round 2 is at 5/6 of the cosine."""
    result = train_locally(loaded, frames, start, replace(TASK, round=2))

    assert result.learning_rate == pytest.approx(1e-4 + 9e-4 * 0.5 * (1 + math.cos(math.pi * 5 / 6)))


def test_first_step_of_adam_is_the_rate(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    """Adam's first step is the learning rate times the gradient's sign, whatever the gradient's size."""
    settings = SETTINGS.model_copy(update={"local_steps": 1, "weight_decay": 0.0, "grad_clip": 0.0})

    result = train_locally(loaded, frames, start, replace(TASK, training=settings))

    name = "model.action_out_proj.weight"
    steps = (result.tensors[name] - start[name]).abs()
    assert float(steps.max()) == pytest.approx(1e-3, rel=1e-3)


def test_loss_that_is_not_finite_is_an_error(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})

    with pytest.raises(FloatingPointError, match=r"partition 3, round 1: the training loss is .*; lower training\.le"):
        train_locally(loaded, frames, start, replace(TASK, partition=3, training=wild))


def test_start_that_does_not_fit_is_refused(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    missing = start.popitem()[0]

    with pytest.raises(TensorMismatch, match=f"tensor '{missing}' is missing"):
        train_locally(loaded, frames, start, TASK)


def test_draws_are_noise_and_times_of_a_beta_distribution() -> None:
    config = SimpleNamespace(chunk_size=2, max_action_dim=3)

    noise, times = flow_draws(config, 20_000, torch.Generator().manual_seed(1))

    assert noise.shape == (20_000, 2, 3) and times.shape == (20_000,)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01) and noise.std().item() == pytest.approx(1.0, abs=0.01)
    assert float(times.min()) >= 0.001 and float(times.max()) <= 1.0
    assert times.mean().item() == pytest.approx(0.001 + 0.999 * 1.5 / 2.5, abs=0.005)  # the mean of Beta(1.5, 1)
