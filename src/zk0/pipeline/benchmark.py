"""benchmark: how fast the trained policy learns and acts on this machine, and what it costs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zk0.console import console
from zk0.data.frames import Frames
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.environment import machine
from zk0.federation.run import read_run
from zk0.files import write_json
from zk0.measuring.timing import peak_bytes, seconds_of
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.features import features_for
from zk0.policy.start import resolve_device
from zk0.policy.trainable import trainable_tensors
from zk0.records.journal import read_lines
from zk0.records.paths import RESULTS
from zk0.training.local import LocalTask, train_locally

OUT = Path("results/benchmark.json")


def run(root: Path, params: Params) -> None:
    """Write results/benchmark.json: step time, chunk latency, bytes, peak memory, machine."""
    torch.set_num_threads(params.threads)
    report = read_run(root)
    best = root / report["checkpoints"]["best"]["path"]
    loaded = load_checkpoint(best, resolve_device(params.policy.device))
    sites, _ = read_manifests(root)
    frames = load_frames(sites[0], root, sites[0].train_episodes, params.data.decoded_limit_bytes)
    shape = "x".join(map(str, next(iter(sites[0].image_shapes.values()))[1:]))
    setting = f"{len(sites[0].cameras)} cameras {shape}, {params.threads} threads, {loaded.policy.config.device}"
    rounds = [row for row in read_lines(root / RESULTS / "rounds.jsonl") if row["round"] > 0]
    rows = [
        _times("optimiser step", _steps(loaded, frames, params, root), f"batch {params.training.batch}, {setting}"),
        _times("action chunk", _chunks(loaded, frames, params), f"batch 1, {setting}"),
        *(_row(f"bytes {way}", _mean_bytes(rounds, way), "bytes", "per site and round") for way in ("up", "down")),
        _row("round", np.mean([r["round_s"] for r in rounds]), "s", f"{len(sites)} sites, in process"),
        _row("peak memory", peak_bytes(), "bytes", "resident, this process"),
    ]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(root / OUT, {"created": created, "machine": machine(), "rows": rows})
    for row in rows:
        console.print(f"{row['name']:<16} {row['value']:.4g} {row['unit']}  ({row['detail']})")


def _mean_bytes(rounds: list[dict[str, Any]], way: str) -> float:
    return float(np.mean([site[f"bytes_{way}"] for row in rounds for site in row["sites"].values()]))


def _row(name: str, value: float, unit: str, detail: str, **more: float | None) -> dict[str, Any]:
    return {"name": name, "value": float(value), "unit": unit, "p50": None, "p95": None, "detail": detail} | more


def _times(name: str, seconds: list[float], detail: str) -> dict[str, Any]:
    p50, p95 = np.percentile(seconds, [50, 95])
    return _row(name, float(np.median(seconds)), "s", detail, p50=float(p50), p95=float(p95))


def _steps(loaded: LoadedPolicy, frames: Frames, params: Params, root: Path) -> list[float]:
    """Seconds of single optimiser steps from kept features, as a site trains, after a warm-up."""
    start = trainable_tensors(loaded.policy)
    training = params.training.model_copy(update={"local_steps": 1})
    features = features_for(loaded, frames, params.features, root)
    if features is not None:
        features.ensure(np.arange(len(frames)))

    def step(number: int) -> None:
        train_locally(loaded, frames, start, LocalTask(params.seed, 0, number, training, params.decay_steps), features)

    return seconds_of(step, params.benchmark.steps)


def _chunks(loaded: LoadedPolicy, frames: Frames, params: Params) -> list[float]:
    """Seconds from one observation to an action chunk in robot units."""
    loaded.policy.eval()

    def chunk(number: int) -> None:
        batch = frames.batch(np.array([number % len(frames)]), loaded.chunk)
        loaded.policy.reset()
        loaded.postprocess(loaded.policy.predict_action_chunk(loaded.preprocess(batch)))

    return seconds_of(chunk, params.benchmark.chunks)
