"""A site's local training."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pytest
import torch
from computed_features import Computed, features_of

from zk0.data.frames import Frames
from zk0.params import TrainingParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.trainable import TensorMismatch, Tensors, digest_tensors, trainable_tensors
from zk0.training.local import LocalTask, flow_draws, train_locally

if TYPE_CHECKING:
    from zk0.policy.features import FrameFeatures

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


def test_update_is_what_training_changed(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    result = train_locally(loaded, frames, start, TASK)

    update, tensors = result.update(start), result.tensors

    assert update.keys() == start.keys()
    assert all(torch.equal(update[n], tensors[n] - start[n]) for n in start)


def test_result_is_gone_once_the_policy_is_used_again(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    first = train_locally(loaded, frames, start, TASK)
    tensors = first.tensors
    second = train_locally(loaded, frames, start, TASK)

    with pytest.raises(RuntimeError, match="take the result before its next use"):
        first.tensors  # noqa: B018
    with pytest.raises(RuntimeError, match="take the result before its next use"):
        first.update(start)
    assert digest_tensors(second.tensors) == digest_tensors(tensors)


@pytest.mark.parametrize("kind", ["tokens", "prefix"])
def test_training_on_features_is_training_on_images(
    loaded: LoadedPolicy, frames: Frames, start: Tensors, kind: Literal["tokens", "prefix"]
) -> None:
    """AdamW's first steps magnify rounding where a gradient is next to nothing, so the update is compared whole."""
    images = train_locally(loaded, frames, start, TASK)
    expected = images.update(start)

    cached = train_locally(loaded, frames, start, TASK, features_of(loaded, frames, kind))

    assert cached.loss == pytest.approx(images.loss, rel=1e-4)
    nothing = {n: torch.zeros_like(t) for n, t in start.items()}
    assert distance(cached.update(start), expected) < 0.02 * distance(expected, nothing)


def test_features_of_the_whole_round_are_asked_for_before_it(
    loaded: LoadedPolicy, frames: Frames, start: Tensors
) -> None:
    asked: list[tuple[str, list[int]]] = []

    class Watched(Computed):
        def ensure(self, rows: np.ndarray) -> None:
            asked.append(("ensure", rows.tolist()))

        def read(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
            asked.append(("read", rows.tolist()))
            return super().read(rows)

    train_locally(loaded, frames, start, TASK, cast("FrameFeatures", Watched(loaded, frames, "tokens")))

    (first, rows), *reads = asked
    assert first == "ensure" and [name for name, _ in reads] == ["read"] * 3
    assert rows == sorted({row for _, read in reads for row in read})


def test_frames_that_cannot_be_read_end_the_round(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    class Broken(Computed):
        def read(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        train_locally(loaded, frames, start, TASK, cast("FrameFeatures", Broken(loaded, frames, "tokens")))

    after = train_locally(loaded, frames, start, TASK).tensors
    assert digest_tensors(after) == digest_tensors(train_locally(loaded, frames, start, TASK).tensors)


class SameRows:
    """A generator that always draws the first four frames."""

    def integers(self, high: int, size: int) -> np.ndarray:
        return np.arange(size) % high


KEEPING = SETTINGS.model_copy(update={"keep_moments": True})


def test_two_rounds_with_kept_moments_are_one_long_round(
    loaded: LoadedPolicy, frames: Frames, start: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same batches, same rates: then only the moments could tell a pause from none."""
    one = KEEPING.model_copy(update={"local_steps": 1, "final_learning_rate": 1e-3})
    two = one.model_copy(update={"local_steps": 2})
    monkeypatch.setattr("zk0.training.local.numpy_rng", lambda *purpose: SameRows())
    monkeypatch.setattr("zk0.training.local.flow_draws", lambda *_: (torch.ones(4, 8, 6), torch.full((4,), 0.5)))

    whole = train_locally(loaded, frames, start, replace(TASK, training=two)).tensors
    first = train_locally(loaded, frames, start, replace(TASK, training=one))
    middle, moments = first.tensors, first.moments
    assert moments is not None and moments["step"].item() == 1
    paused = train_locally(loaded, frames, middle, replace(TASK, training=one, round=2), moments=moments)
    tensors = paused.tensors
    fresh = train_locally(loaded, frames, middle, replace(TASK, training=one, round=2)).tensors

    assert digest_tensors(tensors) == digest_tensors(whole) != digest_tensors(fresh)
    assert paused.moments is not None and paused.moments["step"].item() == 2


def test_moments_are_kept_only_when_asked_for(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    kept = train_locally(loaded, frames, start, replace(TASK, training=KEEPING)).moments
    assert kept is not None and len(kept) == 2 * len(start) + 1

    plain = train_locally(loaded, frames, start, TASK)
    expected = plain.tensors
    ignoring = train_locally(loaded, frames, start, TASK, moments=kept)

    assert plain.moments is None and ignoring.moments is None
    assert digest_tensors(ignoring.tensors) == digest_tensors(expected)


def test_moments_of_another_policy_are_refused(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    task = replace(TASK, training=KEEPING)
    kept = train_locally(loaded, frames, start, task).moments
    assert kept is not None
    name = f"exp_avg/{next(iter(start))}"
    del kept[name]

    with pytest.raises(TensorMismatch, match=f"tensor '{name}' is missing"):
        train_locally(loaded, frames, start, task, moments=kept)


def test_mixed_precision_keeps_weights_and_learns_alike(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    full = train_locally(loaded, frames, start, TASK).loss
    mixed = train_locally(
        loaded, frames, start, replace(TASK, training=SETTINGS.model_copy(update={"precision": "bf16"}))
    )

    assert mixed.loss == pytest.approx(full, rel=0.02) and mixed.loss != full
    assert {tensor.dtype for tensor in mixed.tensors.values()} == {torch.float32}


def test_gradients_left_behind_do_not_count(loaded: LoadedPolicy, frames: Frames, start: Tensors) -> None:
    clean = train_locally(loaded, frames, start, TASK).tensors
    for parameter in loaded.policy.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)

    assert digest_tensors(train_locally(loaded, frames, start, TASK).tensors) == digest_tensors(clean)


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
