"""The ClientApp: what a site does when the server asks.

Everything about a site's data is computed here; what leaves is a summary, moments, trained
tensors and metrics, each as a Flower message, on every engine.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from zk0.data.sim.arm import JOINTS
from zk0.evaluation.held_out import Limits, action_errors, held_out_excess, held_out_loss
from zk0.federation import protocol, wire
from zk0.federation.aggregation import update_norm
from zk0.federation.site import Site, open_site, shared_policy
from zk0.federation.statistics import moments_of
from zk0.policy.checkpoint import LoadedPolicy, Stats
from zk0.policy.trainable import Tensors, load_trainable
from zk0.training.local import LocalTask, train_locally

app = ClientApp()


def _site(context: Context) -> Site:
    config = context.node_config
    return open_site(Path(str(config["project"])), int(config["partition-id"]), int(config["decoded-limit-bytes"]))


def _policy(site: Site, task: protocol.SiteTask, content: RecordDict) -> LoadedPolicy:
    stats = None if task.own_stats else unpack_stats(wire.unpack(content, protocol.STATS))
    return shared_policy(site.root, task.base, task.device, stats)


def pack_stats(stats: Stats) -> Tensors:
    """Statistics as tensors for the wire."""
    return {
        f"{feature}/{name}": torch.from_numpy(np.asarray(v)) for feature, s in stats.items() for name, v in s.items()
    }


def unpack_stats(tensors: Tensors) -> Stats:
    """Statistics from the wire."""
    stats: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        feature, _, name = key.rpartition("/")
        stats.setdefault(feature, {})[name] = tensor.numpy()
    return stats


def _reply(
    message: Message, task: protocol.Header, tensors: dict[str, Tensors] | None = None, **values: Any
) -> Message:
    content = RecordDict()
    header = protocol.Header(run=task.run, round=task.round, partition=task.partition)
    protocol.write(content, header, **values)
    for name, group in (tensors or {}).items():
        wire.pack(content, name, group)
    return Message(content, reply_to=message)


@app.query("summary")
def summary(message: Message, context: Context) -> Message:
    """Which data the site has: its manifest without per-episode digests."""
    header, _ = protocol.read(message.content)
    return _reply(message, header, manifest=_site(context).manifest.summary())


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """Moments of the site's training frames, for the common normalisation."""
    header, _ = protocol.read(message.content)
    moments = moments_of(_site(context).train_frames)
    return _reply(message, header, {protocol.MOMENTS: moments.to_tensors()})


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train locally from the global tensors; answer with the difference."""
    task, _ = protocol.read(message.content, protocol.SiteTask)
    site = _site(context)
    start = wire.unpack(message.content, protocol.GLOBAL)
    local = LocalTask(task.seed, task.partition, task.round, task.training, task.decay_steps, task.proximal_mu)
    result = train_locally(_policy(site, task, message.content), site.train_frames, start, local)
    delta = {name: tensor - start[name] for name, tensor in result.tensors.items()}
    return _reply(
        message,
        task,
        {protocol.DELTA: delta},
        train_loss=result.loss,
        examples=result.examples,
        frames=len(site.train_frames),
        train_s=result.seconds,
        learning_rate=result.learning_rate,
        update_norm=update_norm(delta),
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Judge tensors on the site's held-out episodes; in detail when asked."""
    began = time.perf_counter()
    task, values = protocol.read(message.content, protocol.SiteTask)
    site = _site(context)
    loaded = _policy(site, task, message.content)
    load_trainable(loaded.policy, wire.unpack(message.content, protocol.GLOBAL))
    frames = site.held_out_frames
    results: dict[str, Any] = {
        "held_out_loss": held_out_loss(loaded, frames, task.evaluation.loss_draws, task.seed),
        "frames": len(frames),
    }
    if task.detailed:
        results |= detail(loaded, site, task, values["limits"])
    return _reply(message, task, **results, evaluate_s=time.perf_counter() - began)


def detail(loaded: LoadedPolicy, site: Site, task: protocol.SiteTask, limits: dict[str, list[float]]) -> dict[str, Any]:
    """Action error by joint, and how far actions leave the recorded limits."""
    frames = site.held_out_frames
    bounds = Limits(**{name: np.array(value) for name, value in limits.items()})
    plain = held_out_excess(loaded, frames, bounds, task.seed)
    perturbed = held_out_excess(loaded, frames, bounds, task.seed, task.evaluation.perturbation)
    return {
        "action_error": dict(zip(JOINTS, action_errors(loaded, frames, task.seed).tolist(), strict=True)),
        "excess": {
            "held-out": {"range_deg": plain.range_deg.tolist(), "velocity": plain.velocity.tolist()},
            "perturbed": {"range_deg": perturbed.range_deg.tolist(), "velocity": perturbed.velocity.tolist()},
        },
    }
