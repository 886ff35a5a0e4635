"""Pretrain the embedded base policy on the public mixture of simulated episodes.

The whole network trains here, vision and language included, so that afterwards the embedded
policy can be fine-tuned the way SmolVLA is: frozen backbone, trainable action expert. The flow
matching loss alone teaches a small vision encoder slowly where things are; a second head, thrown
away at the end, therefore reads the object's place from the image tokens while they are learned.
It plays the part that vision-language pretraining has for the full-size model.
"""

from __future__ import annotations

import io
import itertools
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zk0.data.frames import ACTION, STATE, Frames, from_episodes
from zk0.data.sim.expert import Episode, record_episodes
from zk0.data.sim.tasks import PAN_AXIS_X_M, PUBLIC, find_task
from zk0.files import write_bytes
from zk0.policy import embedded
from zk0.policy.checkpoint import LoadedPolicy, save_checkpoint, with_stats
from zk0.policy.start import CAMERAS, build_nano
from zk0.seeding import numpy_rng, torch_rng
from zk0.training.local import flow_draws


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


def _record_part(task: str, first_seed: int, count: int, noise: float, path: Path) -> None:
    episodes = list(record_episodes(find_task(task), itertools.count(first_seed), count, embedded.IMAGE_SIZE, noise))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        lengths=[len(e.states) for e in episodes],
        seeds=[e.seed for e in episodes],
        sentences=[e.sentence for e in episodes],
        places=np.stack([e.place for e in episodes]),
        states=np.concatenate([e.states for e in episodes]),
        actions=np.concatenate([e.actions for e in episodes]),
        **{f"image_{name}": np.concatenate([e.images[name] for e in episodes]) for name in episodes[0].images},
    )
    partial.rename(path)


def _load_part(path: Path) -> list[Episode]:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    cuts = np.cumsum(arrays["lengths"])[:-1]
    split = {k: np.split(v, cuts) for k, v in arrays.items() if k in ("states", "actions") or k.startswith("image_")}
    return [
        Episode(
            seed=int(arrays["seeds"][i]),
            sentence=str(arrays["sentences"][i]),
            states=split["states"][i],
            actions=split["actions"][i],
            images={k.removeprefix("image_"): v[i] for k, v in split.items() if k.startswith("image_")},
            place=arrays["places"][i],
        )
        for i in range(len(arrays["lengths"]))
    ]


def public_mixture(config: PretrainConfig, folder: Path, say: Callable[[str], None]) -> tuple[Frames, np.ndarray]:
    """Record the public episodes (two processes, resumable by part) and load them.

    Returns:
        The frames, and (N, 2) the object's place for each.
    """
    jobs = []
    for number, task in enumerate(PUBLIC):
        for part in range(2):
            path = folder / f"{task.name}-{part}.npz"
            if not path.exists():
                first = 1_000_000 * (number + 1) + 500_000 * part
                share = 4 if task.verb == "point" else 2  # pointing is the easiest to learn
                jobs.append((task.name, first, config.episodes // share, config.noise, path))
    if jobs:
        say(f"recording {len(jobs)} parts of the public mixture")
        with ProcessPoolExecutor(2) as pool:
            for done in [pool.submit(_record_part, *job) for job in jobs]:
                done.result()
    episodes = [e for path in sorted(folder.glob("public-*-?.npz")) for e in _load_part(path)]
    places = np.concatenate([np.repeat(e.place[None], len(e.states), axis=0) for e in episodes])
    return from_episodes(episodes), places.astype(np.float32)


def pretrain(config: PretrainConfig, work: Path, out: Path, say: Callable[[str], None] = print) -> None:
    """Record, train and write the base policy; continues where an interrupted call stopped.

    Args:
        config: Sizes and seeds.
        work: Folder for episodes and resumable state.
        out: The checkpoint, in LeRobot's format, weights in half precision.
        say: Where progress goes.
    """
    frames, places = public_mixture(config, work / "episodes", say)
    say(f"{len(frames)} frames")
    if not (work / "vlm").exists():  # a continued run keeps the tokenizer its weights were trained with
        embedded.write_vlm(work / "vlm")
    policy = build_nano(work / "vlm", CAMERAS, config.seed, frozen_backbone=False)
    stats = {
        STATE: {"mean": frames.states.mean(0), "std": frames.states.std(0).clip(1e-2)},
        ACTION: {"mean": frames.actions.mean(0), "std": frames.actions.std(0).clip(1e-2)},
    }
    loaded = with_stats(policy, stats)
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
    flow_sum = place_sum = 0.0
    started = time.monotonic()
    for step in range(first, config.steps):
        rate = _rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = numpy_rng(config.seed, "batch", step).integers(len(frames), size=config.batch)
        batch = loaded.preprocess(frames.batch(rows, embedded.CHUNK))
        noise, times = flow_draws(policy.config, config.batch, torch_rng(config.seed, "flow", step))
        with torch.autocast("cpu", torch.bfloat16):
            flow, _ = policy(batch, noise=noise, time=times)
        place = head.loss(torch.from_numpy(places[rows]))
        optimizer.zero_grad()
        (flow + config.place_weight * place).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        flow_sum += float(flow.detach())
        place_sum += float(place.detach())
        if (step + 1) % 100 == 0:
            pace = (time.monotonic() - started) / (step + 1 - first)
            say(
                f"step {step + 1}/{config.steps}  flow loss {flow_sum / 100:.4f}  "
                f"place error {math.sqrt(place_sum / 100) * 10:.2f} cm  {pace:.2f} s/step"
            )
            flow_sum = place_sum = 0.0
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save_state(state_file, policy, head, optimizer, step + 1)
            _export(loaded, stats, work / "vlm", out)


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


def _export(loaded: LoadedPolicy, stats: dict[str, dict[str, np.ndarray]], vlm: Path, out: Path) -> None:
    """Save as a policy that fine-tunes in SmolVLA's default regime: frozen backbone."""
    fine_tuned = build_nano(vlm, CAMERAS, seed=0)
    fine_tuned.load_state_dict(loaded.policy.state_dict())
    save_checkpoint(with_stats(fine_tuned, stats), out, half=True)
