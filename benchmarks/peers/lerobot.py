"""LeRobot's own training, as `lerobot-train` runs it, with the clock on its steps.

``lerobot.scripts.lerobot_train.train`` runs unchanged: its policy, its dataset class, sampler and
loader with worker processes, its preprocessor, its optimiser preset, its update. It reports every
step's seconds to its log, and there they are read.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lerobot.configs.default import DatasetConfig, WandBConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.scripts.lerobot_train import train
from lerobot.utils.logging_utils import MetricsTracker

from benchmarks.local_training import PeerSteps
from zk0.measuring.timing import peak_bytes


def lerobot_steps(
    *,
    dataset: str,
    repo_id: str,
    episodes: list[int],
    policy: dict[str, object],
    batch: int,
    steps: int,
    device: str,
    precision: str,
    workers: int,
    threads: int,
) -> PeerSteps:
    """Train for some steps.

    Args:
        dataset: Folder of a LeRobotDataset v3.
        repo_id: Its name.
        episodes: Which of its episodes to train on.
        policy: Arguments of ``SmolVLAConfig`` that differ from LeRobot's defaults.
        batch: Frames a step.
        steps: Optimiser steps.
        device: cpu or cuda.
        precision: fp32, or bf16 for Accelerate's mixed precision.
        workers: The loader's processes (0 = load in this one).
        threads: Threads of this process.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="zk0-bench-") as folder, steps_noted() as seen:
        config = TrainPipelineConfig(
            dataset=DatasetConfig(repo_id=repo_id, root=dataset, episodes=episodes, video_backend=decoder()),
            policy=SmolVLAConfig(**policy, device=device, push_to_hub=False),
            output_dir=Path(folder) / "out",
            batch_size=batch,
            num_workers=workers,
            steps=steps,
            log_freq=1,
            save_checkpoint=False,
            env_eval_freq=0,
            wandb=WandBConfig(enable=False),
        )
        accelerator = Accelerator(
            step_scheduler_with_optimizer=False,
            mixed_precision="bf16" if precision == "bf16" else "no",
            cpu=device == "cpu",
        )
        began = time.perf_counter()
        train(config, accelerator=accelerator)
    update, data, ended = zip(*seen, strict=True)
    return {
        "update_s": list(update),
        "data_s": list(data),
        "start_s": ended[0] - update[0] - data[0] - began,
        "peak_bytes": peak_bytes(),
        "decoder": decoder(),
    }


@contextmanager
def steps_noted() -> Iterator[list[tuple[float, float, float]]]:
    """Within the block, LeRobot's reports of its steps: seconds of update and of waiting for data, and when."""
    seen: list[tuple[float, float, float]] = []
    make_record = logging.getLogRecordFactory()

    def watching(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make_record(*arguments, **named)
        if isinstance(record.msg, MetricsTracker):
            seen.append((record.msg.update_s.avg, record.msg.dataloading_s.avg, time.perf_counter()))
        return record

    logging.setLogRecordFactory(watching)
    try:
        yield seen
    finally:
        logging.setLogRecordFactory(make_record)


def decoder() -> str:
    """The faster of LeRobot's video decoders that works here."""
    try:
        import torchcodec.decoders  # noqa: F401, PLC0415 - to see whether it loads
    except (ImportError, OSError, RuntimeError):
        return "pyav"
    return "torchcodec"
