"""benchmark: how fast the trained policy learns and acts on this machine, and what it costs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from zk0.console import console
from zk0.data.frames import Frames
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.machine import machine
from zk0.measuring.timing import peak_bytes, seconds_of
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.features import features_for
from zk0.policy.start import resolve_device
from zk0.policy.trainable import trainable_tensors
from zk0.records.base import Machine
from zk0.records.files import read, read_rounds, write
from zk0.records.results import Benchmark, BenchmarkRow
from zk0.records.run import Run
from zk0.training.local import LocalTask, train_locally


def run(root: Path, params: Params) -> None:
    """Write results/benchmark.json: step time, chunk latency, bytes, peak memory, machine."""
    torch.set_num_threads(params.threads)
    best = root / read(root, Run).checkpoints.best.path
    loaded = load_checkpoint(best, resolve_device(params.policy.device))
    sites, _ = read_manifests(root)
    frames = load_frames(sites[0], root, sites[0].train_episodes, params.data.decoded_limit_bytes)
    shape = "x".join(map(str, next(iter(sites[0].image_shapes.values()))[1:]))
    setting = f"{len(sites[0].cameras)} cameras {shape}, {params.threads} threads, {loaded.policy.config.device}"
    rounds = [one for one in read_rounds(root) if one.round > 0]
    replies = [site for one in rounds for site in one.sites.values()]
    rows = [
        _times("optimiser step", _steps(loaded, frames, params, root), f"batch {params.training.batch}, {setting}"),
        _times("action chunk", _chunks(loaded, frames, params), f"batch 1, {setting}"),
        _row("bytes up", fmean(float(s.bytes_up or 0) for s in replies), "bytes", "per site and round"),
        _row("bytes down", fmean(float(s.bytes_down or 0) for s in replies), "bytes", "per site and round"),
        _row("round", fmean(float(r.round_s or 0) for r in rounds), "s", f"{len(sites)} sites, in process"),
        _row("peak memory", peak_bytes(), "bytes", "resident, this process"),
    ]
    created, this = datetime.now(UTC).isoformat(timespec="seconds"), Machine.model_validate(machine())
    write(root, Benchmark(created=created, machine=this, rows=rows))
    for row in rows:
        console.print(f"{row.name:<16} {row.value:.4g} {row.unit}  ({row.detail})")


def _row(
    name: str, value: float, unit: str, detail: str, p50: float | None = None, p95: float | None = None
) -> BenchmarkRow:
    return BenchmarkRow(name=name, value=float(value), unit=unit, p50=p50, p95=p95, detail=detail)


def _times(name: str, seconds: list[float], detail: str) -> BenchmarkRow:
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
