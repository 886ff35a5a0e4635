"""Pretrain the embedded base policy on the public mixture of simulated episodes.

The whole network trains here, vision and language included, so that afterwards the embedded
policy can be fine-tuned the way SmolVLA is: frozen backbone, trainable action expert. The flow
matching loss alone teaches a small vision encoder slowly where things are; a second head, thrown
away at the end, therefore reads the object's place from the image tokens while they are learned.
It plays the part that vision-language pretraining has for the full-size model.
"""

from __future__ import annotations

import io
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zk0.data.frames import ACTION, STATE, Frames, from_episodes
from zk0.data.sim.tasks import PAN_AXIS_X_M
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.files import read_mapping, write_bytes, write_json
from zk0.policy import embedded
from zk0.policy.checkpoint import LoadedPolicy, Stats, load_checkpoint, own_stats, save_checkpoint, with_stats
from zk0.policy.start import CAMERAS, build_nano, load_start
from zk0.seeding import numpy_rng, seeded, torch_rng
from zk0.training.local import flow_draws
from zk0.training.mixture import public_mixture

GOING_ON_RATE = 3e-4  # peak of the learning rate where the weights have been trained before
_BY_WORD = ("embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class PretrainConfig:
    """How the base is made.

    Attributes:
        episodes: Demonstrations of each public task; half as many for pointing, which is easy.
        noise: Disturbance while recording, see :func:`zk0.data.sim.expert.record_episode`.
        steps: Optimiser steps.
        batch: Frames a step.
        learning_rate: Peak, reached after ``warmup`` steps; then a cosine down to a fiftieth.
        warmup: Steps.
        place_weight: Weight of the object-place loss.
        seed: Decides episodes, weights and batches.
        save_every: Steps between resumable states.
        rooms: Share of the episodes that are recorded each in a room of its own (0 = all in the shared one).
    """

    episodes: int = 800
    noise: float = 0.3
    steps: int = 4500
    batch: int = 32
    learning_rate: float = 6e-4
    warmup: int = 300
    place_weight: float = 0.5
    seed: int = 1
    save_every: int = 250
    rooms: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rooms <= 1:
            raise StageError(f"the share of episodes in rooms of their own must be from 0 to 1 (got {self.rooms})")


class PlaceHead(nn.Module):
    """Reads the object's place from the image tokens of all cameras; used only in pretraining."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        vlm = policy.model.vlm_with_expert.get_vlm_model()
        width = policy.model.vlm_with_expert.config.text_config.hidden_size
        self.tokens: list[torch.Tensor] = []
        vlm.connector.register_forward_hook(lambda _module, _inputs, output: self.tokens.append(output))
        self.read = nn.Sequential(nn.Linear(len(CAMERAS) * 16 * width, 128), nn.GELU(), nn.Linear(128, 2))

    def loss(self, place: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the place, in decimetres, from the tokens seen since the last call."""
        tokens = torch.cat([t.flatten(1) for t in self.tokens], dim=1)
        self.tokens.clear()
        offset = torch.tensor([PAN_AXIS_X_M + 0.2, 0.0])
        return nn.functional.mse_loss(self.read(tokens.float()), (place - offset) / 0.1)


def pretrain(
    config: PretrainConfig,
    work: Path,
    out: Path,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Record, train and write the base policy; continues where an interrupted call stopped.

    Args:
        config: Sizes and seeds.
        work: Folder for episodes and resumable state.
        out: The checkpoint, in LeRobot's format, weights in half precision.
        start: Checkpoint from whose weights to go on; its tokenizer and its normalisation are kept, since the weights
            were trained with them (None = random weights).
        say: Where progress goes.

    Raises:
        StageError: ``work`` was begun otherwise, or ``start`` is of another architecture.
        CheckpointError: See :func:`zk0.policy.checkpoint.load_checkpoint`.
    """
    before = load_checkpoint(start) if start else None
    if start and before:
        _check_architecture(start, before)
    _check_work(config, work, start)
    say("the public mixture")
    episodes = public_mixture(work / "episodes", config.episodes, config.noise, config.rooms, embedded.IMAGE_SIZE)
    places = np.repeat([e.place for e in episodes], [len(e.states) for e in episodes], axis=0).astype(np.float32)
    frames = from_episodes(episodes)
    del episodes  # their pictures would be held twice
    say(f"{len(frames)} frames")
    loaded, stats = _begin(config, work / "vlm", before, frames)
    policy = loaded.policy
    with seeded(config.seed):
        head = PlaceHead(policy)
    trained = [p for p in [*policy.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=1e-4)
    state_file = work / "state.pt"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        policy.load_state_dict(state["policy"])
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["step"])
        say(f"continuing at step {first}")
    policy.train()
    losses = np.zeros(2)
    started = time.monotonic()
    for step in range(first, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(config, step)
        rows = numpy_rng(config.seed, "batch", step).integers(len(frames), size=config.batch)
        batch = loaded.preprocess(frames.batch(rows, embedded.CHUNK))
        losses += _step(config, step, loaded, head, batch, torch.from_numpy(places[rows]), optimizer)
        if (step + 1) % 100 == 0:
            pace = (time.monotonic() - started) / (step + 1 - first)
            flow, place = losses / 100
            say(
                f"step {step + 1}/{config.steps}  flow loss {flow:.4f}  "
                f"place error {math.sqrt(place) * 10:.2f} cm  {pace:.2f} s/step"
            )
            losses[:] = 0.0
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save_state(state_file, policy, head, optimizer, step + 1)
            _export(loaded, stats, work / "vlm", out)


def _step(
    config: PretrainConfig,
    step: int,
    loaded: LoadedPolicy,
    head: PlaceHead,
    batch: dict[str, Any],
    place: torch.Tensor,
    optimizer: torch.optim.Optimizer,
) -> tuple[float, float]:
    """One optimiser step; the flow and the place loss before it."""
    noise, times = flow_draws(loaded.policy.config, config.batch, torch_rng(config.seed, "flow", step))
    with torch.autocast("cpu", torch.bfloat16):
        flow, _ = loaded.policy(batch, noise=noise, time=times)
    missed = head.loss(place)
    optimizer.zero_grad()
    (flow + config.place_weight * missed).backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return float(flow.detach()), float(missed.detach())


def _check_work(config: PretrainConfig, work: Path, start: Path | None) -> None:
    """Refuse to go on in a folder with what belongs to other settings; where there is none, note these."""
    path, asked = work / "settings.json", asdict(config) | {"from": digest_folder(start) if start else None}
    if not path.exists():
        write_json(path, asked)
    begun = read_mapping(path)
    if other := [name for name in asked if begun.get(name) != asked[name]]:
        raise StageError(
            f"{work} was begun with {other[0]} {begun.get(other[0])}, and {asked[other[0]]} is asked for; take another "
            "--work, or remove it"
        )


def _check_architecture(start: Path, before: LoadedPolicy) -> None:
    found, expected = (_architecture(one) for one in (before, load_start(Path(), "random:nano", "cpu")))
    if other := sorted(name for name in found | expected if found.get(name) != expected.get(name)):
        raise StageError(
            f"{start} is of another architecture than the embedded base: {other[0]} is {found.get(other[0])}, and "
            f"{expected.get(other[0])} was expected; go on from a checkpoint of models/nano-base's size"
        )


def _architecture(loaded: LoadedPolicy) -> dict[str, object]:
    """Shapes of all weights; how many words a tokenizer has is its own affair."""
    shapes = {name: list(tensor.shape) for name, tensor in loaded.policy.state_dict().items()}
    words = {name: shape[1:] for name, shape in shapes.items() if name.endswith(_BY_WORD)}
    return shapes | words | {"cameras": loaded.cameras, "chunk": loaded.chunk}


def _begin(
    config: PretrainConfig, vlm: Path, before: LoadedPolicy | None, frames: Frames
) -> tuple[LoadedPolicy, Stats]:
    """The policy at step 0, all of it trainable, and by what it normalises."""
    if not vlm.exists():  # a continued run keeps the tokenizer its weights were trained with
        if before:
            shutil.copytree(before.policy.config.vlm_model_name, vlm)
        else:
            embedded.write_vlm(vlm)
    policy = build_nano(vlm, CAMERAS, config.seed, frozen_backbone=False)
    if before:
        policy.load_state_dict(before.policy.state_dict())
    stats = own_stats(before) if before else _stats_of(frames)
    return with_stats(policy, stats), stats


def _stats_of(frames: Frames) -> Stats:
    return {
        STATE: {"mean": frames.states.mean(0), "std": frames.states.std(0).clip(1e-2)},
        ACTION: {"mean": frames.actions.mean(0), "std": frames.actions.std(0).clip(1e-2)},
    }


def _rate(config: PretrainConfig, step: int) -> float:
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def _save_state(path: Path, policy: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "policy": policy.state_dict(),
            "head": head.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        },
        buffer,
    )
    write_bytes(path, buffer.getvalue())


def _export(loaded: LoadedPolicy, stats: Stats, vlm: Path, out: Path) -> None:
    """Save as a policy that fine-tunes in SmolVLA's default regime: frozen backbone."""
    fine_tuned = build_nano(vlm, CAMERAS, seed=0)
    fine_tuned.load_state_dict(loaded.policy.state_dict())
    save_checkpoint(with_stats(fine_tuned, stats), out, half=True)
