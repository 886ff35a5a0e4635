"""The split forward pass: LeRobot's own losses, gradients and actions, whatever the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from computed_features import Kind, features_of
from lerobot.configs import NormalizationMode
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from policy_on_frames import flow_loss, predict_chunk

from zk0.console import console, lerobot_quiet
from zk0.data.frames import Frames, ImageStore
from zk0.errors import StageError
from zk0.federation.statistics import moments_of
from zk0.policy import flow
from zk0.policy.attention import covers
from zk0.policy.checkpoint import LoadedPolicy, with_stats
from zk0.policy.inputs import FrameInputs
from zk0.seeding import seeded
from zk0.training.local import flow_draws

if TYPE_CHECKING:
    from zk0.policy.features import FrameFeatures

WRIST = "observation.images.wrist"


@dataclasses.dataclass(frozen=True)
class OneCamera:
    """A recording of the wrist camera alone."""

    images: ImageStore
    cameras = (WRIST,)

    def read(self, camera: str, rows: np.ndarray) -> torch.Tensor:
        return self.images.read(camera, rows)


@pytest.fixture(scope="session")
def frames(frames: Frames) -> Frames:
    """The recording with a longer instruction for all frames but the first episode's."""
    first = int(frames.last[0]) + 1
    longer = ("lift the green cube, and then put it down beside the red one",) * (len(frames) - first)
    return dataclasses.replace(frames, sentences=frames.sentences[:first] + longer)


@pytest.fixture
def rows(frames: Frames) -> np.ndarray:
    """Both instructions, the last frame of an episode, and one frame twice."""
    return np.array([3, int(frames.last[0]) + 4, int(frames.last[0]), 3])


@pytest.fixture(autouse=True)
def _no_gradients_left(loaded: LoadedPolicy) -> Iterator[None]:
    yield
    loaded.policy.zero_grad(set_to_none=True)


def variant(loaded: LoadedPolicy, frames: Frames, **changes: Any) -> LoadedPolicy:
    """The embedded-size policy with another configuration, untrained."""
    changes = {"input_features": dict(loaded.policy.config.input_features), **changes}
    with seeded(0), lerobot_quiet():
        policy = SmolVLAPolicy(dataclasses.replace(loaded.policy.config, **changes))
    return with_stats(policy.eval(), moments_of(frames).normalisation())


def draws(loaded: LoadedPolicy, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return flow_draws(loaded.policy.config, count, torch.Generator().manual_seed(1))


def lerobot_loss(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, reduction: str = "mean") -> torch.Tensor:
    noise, times = draws(loaded, len(rows))
    batch = loaded.preprocess(frames.batch(rows, loaded.chunk))
    return loaded.policy(batch, noise=noise, time=times, reduction=reduction)[0]


def split_loss(
    loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, features: FrameFeatures | None = None
) -> torch.Tensor:
    return flow_loss(loaded, frames, rows, *draws(loaded, len(rows)), features)


def gradients(loaded: LoadedPolicy, loss: Callable[[], torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    loaded.policy.zero_grad(set_to_none=True)
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    found = {n: p.grad.clone() for n, p in loaded.policy.named_parameters() if p.grad is not None}
    loaded.policy.zero_grad(set_to_none=True)
    return float(value.detach()), found


def assert_same(
    loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, kind: Kind | None = None, tolerance: float = 1e-5
) -> None:
    """Same loss, and every gradient the same up to a share of its largest value."""
    features = features_of(loaded, frames, kind)
    expected_loss, expected = gradients(loaded, lambda: lerobot_loss(loaded, frames, rows))
    loss, found = gradients(loaded, lambda: split_loss(loaded, frames, rows, features))

    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert found.keys() == expected.keys() and found
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            found[name], gradient, atol=tolerance * scale + 1e-9, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("kind", [None, "tokens", "prefix"])
def test_loss_and_gradients_are_lerobots(
    loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, kind: Kind | None
) -> None:
    assert len({frames.sentences[row] for row in rows}) == 2

    assert_same(loaded, frames, rows, kind)


@pytest.mark.parametrize(
    "changes",
    [
        {"add_image_special_tokens": True},
        {"prefix_length": 80},
        {"pad_language_to": "max_length"},
        {"attention_mode": "self_attn"},
        {"self_attn_every_n_layers": 0},
        {"self_attn_every_n_layers": 3},
        {"num_expert_layers": 2, "self_attn_every_n_layers": 0},
        {"num_expert_layers": 2, "attention_mode": "self_attn"},
        {"empty_cameras": 1},
        {"empty_cameras": 2, "add_image_special_tokens": True},
        {"resize_imgs_with_padding": (48, 48)},
        {"max_state_dim": 8, "max_action_dim": 9},
        {"train_state_proj": False},
    ],
    ids=str,
)
def test_other_configurations(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, changes: dict[str, Any]) -> None:
    changed = variant(loaded, frames, **changes)

    assert_same(changed, frames, rows, "tokens")
    assert_same(changed, frames, rows, "prefix")


def test_camera_that_the_data_lacks(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    one_eyed = dataclasses.replace(frames, images=OneCamera(frames.images))

    assert_same(loaded, one_eyed, rows)
    assert_same(variant(loaded, frames, empty_cameras=1), one_eyed, rows, "prefix")


@pytest.mark.parametrize("seen_frozen", [True, False])
def test_language_model_or_vision_encoder_that_train(
    loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, seen_frozen: bool
) -> None:
    whole = variant(loaded, frames, train_expert_only=False, freeze_vision_encoder=seen_frozen)
    whole.policy.model.vlm_with_expert.get_vlm_model().connector.requires_grad_(not seen_frozen)

    assert_same(whole, frames, rows, "tokens" if seen_frozen else None)
    _, found = gradients(whole, lambda: split_loss(whole, frames, rows))
    assert any("text_model" in name for name in found)
    assert any("vision_model" in name for name in found) != seen_frozen


def test_what_is_padding_costs_nothing(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    """The layers see the actions up to each chunk's last real one, and no more."""
    seen = []
    layer = loaded.policy.model.vlm_with_expert.lm_expert.layers[0].mlp
    hook = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
    real = sum(min(int(frames.last[row]) - row + 1, loaded.chunk) for row in rows)

    split_loss(loaded, frames, rows)
    hook.remove()

    assert seen == [real] and real < len(rows) * loaded.chunk


def test_padding_between_real_actions(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    """No recording has it, but LeRobot's rule is known: later actions attend to it."""
    batch, noise = FrameInputs(loaded, frames).batch(rows), draws(loaded, len(rows))
    assert batch.is_pad is not None
    batch.is_pad[:, 2] = True
    expected = loaded.preprocess(frames.batch(rows, loaded.chunk)) | {"action_is_pad": batch.is_pad}

    with torch.no_grad():
        found = flow.batch_loss(loaded.policy, batch, *noise, reduction="none")
        losses = loaded.policy(expected, noise=noise[0], time=noise[1], reduction="none")[0]

    torch.testing.assert_close(found, losses, rtol=1e-5, atol=1e-6)


def test_smoothness_is_the_error_of_the_actions_acceleration(
    loaded: LoadedPolicy, frames: Frames, rows: np.ndarray
) -> None:
    batch, (noise, times) = FrameInputs(loaded, frames).batch(rows), draws(loaded, len(rows))
    assert batch.is_pad is not None and batch.actions is not None
    batch.is_pad[0, 2] = True
    actions = torch.nn.functional.pad(batch.actions, (0, noise.shape[2] - batch.actions.shape[2]))
    noisy = torch.lerp(actions, noise, times[:, None, None])
    with torch.no_grad():
        context = flow.context_of(loaded.policy, batch)
        plain, smooth = (
            flow.batch_loss(loaded.policy, batch, noise, times, "none", context, weight) for weight in (0.0, 0.5)
        )
        # at once, by one step: from the noisy actions, along the velocity, for all the time that is left
        reached = noisy - times[:, None, None] * flow.velocity(loaded.policy, context, noisy, times)

    wrong, joints = (reached - actions)[:, :, : batch.actions.shape[2]].numpy(), batch.actions.shape[2]
    for sample, (pad, off) in enumerate(zip(batch.is_pad.numpy(), wrong, strict=True)):
        whole = [n for n in range(2, len(pad)) if not pad[n - 2 : n + 1].any()]
        bent = sum(float(((off[n] - 2 * off[n - 1] + off[n - 2]) ** 2).sum()) for n in whole)
        expected = 0.5 * bent / (float((~pad).sum()) * joints)
        assert float(smooth[sample] - plain[sample]) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert float((smooth - plain).max()) > 0.01


def test_lerobots_own_forward_pass_knows_no_smoothness(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    other = variant(loaded, frames, rtc_config=RTCConfig(enabled=True))
    batch = FrameInputs(other, frames).batch(rows)
    with pytest.raises(StageError, match=r"training.smoothness is 0.5, but .*: .*. Set training.smoothness to 0"):
        flow.batch_loss(other.policy, batch, *draws(other, len(rows)), smoothness=0.5)


def test_losses_of_samples(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    with torch.no_grad():
        expected = lerobot_loss(loaded, frames, rows, "none")
        found = flow_loss(loaded, frames, rows, *draws(loaded, len(rows)), reduction="none")

    assert found.shape == (len(rows),)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["tokens", "prefix"])
def test_features_kept_in_bf16(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, kind: Kind) -> None:
    """Eight bits of mantissa: the loss to half a percent, each gradient to 2 % of its norm."""
    exact, expected = gradients(loaded, lambda: split_loss(loaded, frames, rows))
    rounded = features_of(loaded, frames, kind, torch.bfloat16)

    loss, found = gradients(loaded, lambda: split_loss(loaded, frames, rows, rounded))

    assert loss == pytest.approx(exact, rel=5e-3) and loss != exact
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 0.02 * float(gradient.norm()), name


@pytest.mark.parametrize("kind", [None, "prefix"])
def test_mixed_precision(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, kind: Kind | None) -> None:
    """Under autocast the loss stays within a percent of LeRobot's in float32, and gradients are float32."""
    expected = float(lerobot_loss(loaded, frames, rows).detach())
    features = features_of(loaded, frames, kind, torch.bfloat16)

    def mixed() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return split_loss(loaded, frames, rows, features)

    loss, found = gradients(loaded, mixed)

    assert loss == pytest.approx(expected, rel=0.01) and loss != expected
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}


def test_language_model_in_bf16(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    """As SmolVLA's published weights load: a bf16 backbone below a float32 expert."""
    mixed = variant(loaded, frames)
    mixed.policy.model.vlm_with_expert.vlm.to(torch.bfloat16)

    expected, _ = gradients(mixed, lambda: lerobot_loss(mixed, frames, rows))
    for kind in (None, "tokens", "prefix"):
        features = features_of(mixed, frames, cast(Kind | None, kind), torch.bfloat16)
        assert gradients(mixed, lambda f=features: split_loss(mixed, frames, rows, f))[0] == pytest.approx(  # type: ignore[misc]
            expected, rel=5e-3
        )


@pytest.mark.parametrize("kind", [None, "tokens", "prefix"])
@pytest.mark.parametrize("changes", [{}, {"attention_mode": "self_attn", "add_image_special_tokens": True}])
def test_actions_are_lerobots(
    loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, kind: Kind | None, changes: dict[str, Any]
) -> None:
    chosen = variant(loaded, frames, **changes) if changes else loaded
    noise, _ = draws(chosen, len(rows))
    chosen.policy.reset()
    expected = chosen.policy.predict_action_chunk(
        chosen.preprocess(frames.batch(rows, chosen.chunk)), noise=noise.clone()
    )

    found = predict_chunk(chosen, frames, rows, noise, features_of(chosen, frames, kind))

    assert found.shape == (len(rows), 8, 6) and not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rtc_config": RTCConfig(enabled=True)}, "real-time chunking"),
        ({"normalization_mapping": {"VISUAL": NormalizationMode.MEAN_STD}}, "normalises images"),
    ],
    ids=["rtc", "images"],
)
def test_what_is_not_covered_runs_by_lerobot(
    loaded: LoadedPolicy,
    frames: Frames,
    rows: np.ndarray,
    changes: dict[str, Any],
    reason: str,
) -> None:
    flow._say_once.cache_clear()
    changed = variant(loaded, frames, **changes)
    assert covers(loaded.policy) is None and reason in str(covers(changed.policy))

    with console.capture() as said, torch.no_grad():
        once, again = (split_loss(changed, frames, rows) for _ in range(2))

    assert said.get().count("LeRobot's own forward pass") == 1 and reason in said.get()
    assert float(once) == float(again) == pytest.approx(float(lerobot_loss(changed, frames, rows).detach()), rel=1e-5)
    with pytest.raises(ValueError, match="switch them off"):
        split_loss(changed, frames, rows, features_of(changed, frames, "tokens"))


def test_uncovered_policy_acts_by_lerobot(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    changed = variant(loaded, frames, normalization_mapping={"VISUAL": NormalizationMode.MEAN_STD})
    noise, _ = draws(changed, len(rows))

    expected = changed.policy.predict_action_chunk(
        changed.preprocess(frames.batch(rows, changed.chunk)), noise=noise.clone()
    )

    torch.testing.assert_close(predict_chunk(changed, frames, rows, noise), expected)


def test_batch_to_act_on_has_no_loss(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> None:
    batch = FrameInputs(loaded, frames).batch(rows, with_actions=False)

    with pytest.raises(ValueError, match="has no loss"):
        flow.batch_loss(loaded.policy, batch, *draws(loaded, len(rows)))
