"""Keys and values of images and language: LeRobot's own, whatever stands beside them in a batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from computed_features import features_of
from lerobot.policies.common.vla_utils import make_att_2d_masks

from zk0.data.frames import Frames
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.flow import batch_loss
from zk0.policy.inputs import Batch, FrameInputs
from zk0.policy.prefix import PrefixMismatch, embed_images, encode_prefix, image_length, stored_prefix
from zk0.policy.start import load_start

ROWS = np.array([3, 9])
LONGER = "touch the red cube, and then the green one"
IMAGES = 2 * 16


def tokens_of(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> list[torch.Tensor]:
    images = {camera: frames.images.read(camera, rows) for camera in loaded.cameras}
    with torch.no_grad():
        return embed_images(loaded.policy, images)


def lerobots(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """What LeRobot keeps when it acts: (B, L, 2, S, H x head_dim), and which of the S are real; without the state."""
    model = loaded.policy.model
    batch = loaded.preprocess(frames.batch(rows, loaded.chunk))
    words, real = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    with torch.no_grad():
        images, masks = loaded.policy.prepare_images(batch)
        embedded, pads, blocks = model.embed_prefix(images, masks, words, real, state=batch["observation.state"])
        _, cache = model.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(pads, blocks),
            position_ids=torch.cumsum(pads, dim=1) - 1,
            inputs_embeds=[embedded, None],
            use_cache=True,
        )
    pairs = [torch.stack([layer.keys, layer.values], dim=1) for layer in cache.layers]
    return torch.stack(pairs, dim=1).transpose(3, 4).flatten(-2)[:, :, :, :-1], pads[:, :-1]


def test_what_lerobot_keeps_when_it_acts(loaded: LoadedPolicy, frames: Frames) -> None:
    """Two instructions of different length: the shorter one's rest is zero, and nobody looks at it."""
    frames = dataclasses.replace(frames, sentences=(*frames.sentences[:9], *[LONGER] * (len(frames) - 9)))
    expected, real = lerobots(loaded, frames, ROWS)

    found = encode_prefix(loaded, tokens_of(loaded, frames, ROWS), [frames.sentences[row] for row in ROWS])

    assert found.shape == expected.shape == (2, 4, 2, real.shape[1], 4 * 32)
    assert not found.requires_grad and not real.all()
    hidden = ~real[:, None, None, :, None]
    torch.testing.assert_close(found, expected.masked_fill(hidden, 0), rtol=1e-4, atol=1e-5)


def test_neighbours_in_a_batch_do_not_matter(loaded: LoadedPolicy, frames: Frames) -> None:
    """A frame with a longer instruction beside it has the same keys and values, and then zeros."""
    tokens = tokens_of(loaded, frames, ROWS)
    sentence = frames.sentences[3]

    alone = encode_prefix(loaded, [token[:1] for token in tokens], [sentence])
    beside = encode_prefix(loaded, tokens, [sentence, LONGER])

    assert beside.shape[3] > alone.shape[3] > IMAGES
    torch.testing.assert_close(beside[:1, :, :, : alone.shape[3]], alone, rtol=1e-5, atol=1e-6)
    assert not beside[0, :, :, alone.shape[3] :].any() and beside[1].all(dim=-1).all()


def test_cached_length_may_exceed_what_a_batch_needs(loaded: LoadedPolicy, frames: Frames) -> None:
    """As when another frame of the cache has a longer instruction: what is over is cut off, to the last bit."""
    exact = FrameInputs(loaded, frames, features_of(loaded, frames, "prefix")).batch(ROWS)
    kept = exact.features["kv"]
    wider = dataclasses.replace(exact, features={"kv": torch.nn.functional.pad(kept, (0, 0, 0, 7), value=100.0)})
    noise, times = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0.2, 0.9])

    with torch.no_grad():
        assert torch.equal(
            batch_loss(loaded.policy, wider, noise, times), batch_loss(loaded.policy, exact, noise, times)
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept[:, :, :, :-1],
        lambda kept: kept[:, :-1],
        lambda kept: kept[:, :, :1],
        lambda kept: kept[..., :-32],
    ],
    ids=["short", "layers", "values", "width"],
)
def test_keys_that_do_not_fit_are_refused(loaded: LoadedPolicy, frames: Frames, change: object) -> None:
    batch = FrameInputs(loaded, frames, features_of(loaded, frames, "prefix")).batch(ROWS)
    spoilt: Batch = dataclasses.replace(batch, features={"kv": change(batch.features["kv"])})  # type: ignore[operator]

    with pytest.raises(PrefixMismatch, match=r"have shape \(2, .*, expected \(2, 4, 2, at least .*computed anew"):
        stored_prefix(loaded.policy, spoilt)


def test_image_length_is_that_of_the_tokens(loaded: LoadedPolicy, frames: Frames) -> None:
    tokens = tokens_of(loaded, frames, ROWS)

    assert image_length(loaded.policy, 2) == sum(token.shape[1] for token in tokens) == IMAGES
    assert image_length(loaded.policy, 1) == tokens[0].shape[1]


def test_full_size() -> None:
    """The 450 M policy, built without a network: loss and gradients of one step are LeRobot's, cached or not."""
    loaded = load_start(Path(), "random:full", "cpu")
    policy, model = loaded.policy, loaded.policy.model
    count = {n: p.numel() for n, p in policy.named_parameters()}
    trainable = sum(count[n] for n, p in policy.named_parameters() if p.requires_grad)
    assert (sum(count.values()), trainable) == (450_046_176, 99_880_992)
    assert sum(n for name, n in count.items() if ".vision_model." in name) == 86_433_024

    rng = torch.Generator().manual_seed(1)
    images = torch.rand(1, 3, 480, 640, generator=rng)
    batch = loaded.preprocess(
        {
            "observation.state": torch.randn(1, 6, generator=rng),
            loaded.cameras[0]: images,
            "action": torch.randn(1, 50, 6, generator=rng),
            "action_is_pad": torch.arange(50)[None] > 40,
            "task": ["Push the cube."],
        }
    )
    noise, times = torch.randn(1, 50, 32, generator=rng), torch.tensor([0.4])
    words, real = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    with torch.no_grad():
        (tokens,) = embed_images(policy, {loaded.cameras[0]: images})
        kept = encode_prefix(loaded, [tokens], ["Push the cube."])
    assert tokens.shape == (1, 64, 960) and kept.shape == (1, 16, 2, 64 + words.shape[1], 320)

    model.vlm_with_expert.embed_image = lambda image: tokens  # the encoder's pass is the slowest part; once is enough
    expected = policy(dict(batch), noise=noise, time=times)[0]
    del model.vlm_with_expert.embed_image
    expected.backward()
    gradients = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    assert len(gradients) == len([p for p in policy.parameters() if p.requires_grad])

    for features, tolerance in (
        ({loaded.cameras[0]: tokens}, 1e-4),
        ({"kv": kept}, 1e-4),
        ({"kv": kept.to(torch.bfloat16)}, 0.02),
    ):
        policy.zero_grad(set_to_none=True)
        given = Batch(
            batch["observation.state"],
            words,
            real,
            padded=False,
            actions=batch["action"],
            is_pad=batch["action_is_pad"],
            cameras=1,
            images={},
            features=features,
        )
        loss = batch_loss(policy, given, noise, times)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                off = float((parameter.grad - gradients[name]).norm() / gradients[name].norm().clamp_min(1e-12))
                assert off < tolerance, f"{name}: {off}"
