"""A project whose federated run has ended: small result files of the true form, a real tiny policy."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import numpy as np
import pytest

from zk0.digests import digest_file, digest_folder
from zk0.files import write_json, write_text

SITES = ("red-cube", "green-ball")
CAMERAS = ("observation.images.top", "observation.images.wrist")
ROUNDS = 3


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SmolVLA of 2 M parameters, untrained, in LeRobot's format."""
    from zk0.policy.checkpoint import save_checkpoint, with_stats
    from zk0.policy.embedded import write_vlm
    from zk0.policy.start import build_nano

    folder = tmp_path_factory.mktemp("policy")
    write_vlm(folder / "vlm")
    policy = build_nano(folder / "vlm", CAMERAS, seed=1)
    six = {"mean": np.full(6, 10.0), "std": np.full(6, 20.0)}
    save_checkpoint(with_stats(policy, {"observation.state": six, "action": six}), folder / "checkpoint", half=True)
    return folder / "checkpoint"


def manifest(site: str, role: str = "site") -> dict[str, Any]:
    return {
        "site": site,
        "partition": 0,
        "role": role,
        "source": f"sim:touch-{site}",
        "revision": "5d41",
        "robot_type": "so101",
        "fps": 10,
        "cameras": list(CAMERAS),
        "tasks": [f"touch the {site.replace('-', ' ')}"],
        "root": f"data/recordings/{site}",
        "train_episodes": [0, 1, 2, 3],
        "held_out_episodes": [4],
        "train_frames": 80,
        "held_out_frames": 20,
        "digest": f"{site}-digest",
    }


def rounds() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [
        {
            "round": 0,
            "train_loss": None,
            "held_out_loss": 0.9,
            "learning_rate": None,
            "bytes_up": 0,
            "bytes_down": 0,
            "round_s": 1.5,
            "aggregate_s": 0.0,
            "save_s": 0.0,
            "is_best": True,
            "digest": "d0",
            "left_out": {},
            "sites": {site: {"held_out_loss": 0.9, "evaluate_s": 0.5} for site in SITES},
        }
    ]
    for number, loss in enumerate((0.6, 0.4, 0.5), 1):
        site = {
            "examples": 480,
            "train_loss": loss + 0.1,
            "held_out_loss": loss,
            "update_norm": 0.7,
            "train_s": 7.9,
            "evaluate_s": 0.8,
            "bytes_up": 1000,
            "bytes_down": 2000,
        }
        lines.append(
            {
                "round": number,
                "train_loss": loss + 0.1,
                "held_out_loss": loss,
                "learning_rate": 4e-4 / number,
                "bytes_up": 2000,
                "bytes_down": 4000,
                "round_s": 9.25,
                "aggregate_s": 0.01,
                "save_s": 0.02,
                "cpu_s": 4.625,
                "memory_bytes": 900_000_000 + number,
                "is_best": number < 3,
                "digest": f"d{number}",
                "left_out": {},
                "sites": {name: dict(site) for name in SITES},
            }
        )
    return lines


def params() -> dict[str, Any]:
    return {
        "seed": 1,
        "policy": {"base": "models/nano-base"},
        "data": {"sites": {site: f"sim:touch-{site}" for site in SITES}, "unseen": {}},
        "federation": {"strategy": "fedavg", "rounds": ROUNDS},
    }


def run(checkpoints: Path) -> dict[str, Any]:
    return {
        "run": "0123456789abcdef",
        "started": "2026-03-01T10:00:00+00:00",
        "ended": "2026-03-01T10:00:30+00:00",
        "wall_s": 30.0,
        "params": params(),
        "base": {"source": "models/nano-base", "digest": "base-digest"},
        "sites": {site: manifest(site) for site in SITES},
        "unseen": {"purple-cylinder": manifest("purple-cylinder", "unseen")},
        "policy": {"parameters": 2_000_000, "trainable_parameters": 600_000, "trainable_bytes": 2_400_000},
        "rounds": ROUNDS,
        "best_round": 2,
        "best_held_out_loss": 0.4,
        "last_held_out_loss": 0.5,
        "start_held_out_loss": 0.9,
        "resumed_at_rounds": [],
        "versions": {"torch": "2.11.0"},
        "git": {"revision": "4f2a91c", "dirty": False},
        "checkpoints": {
            which: {"path": f"checkpoints/{which}", "digest": digest_folder(checkpoints / which)}
            for which in ("best", "last")
        },
    }


def evaluation(root: Path, rate: float = 0.75) -> dict[str, Any]:
    task = {
        "held_out_loss": 0.4,
        "action_error_deg": 3.5,
        "action_error_deg_by_joint": {"shoulder_pan": 3.0},
        "held_out_frames": 20,
        "rollouts": 4,
        "successes": 3,
        "success_rate": rate,
        "success_low": 0.3,
        "success_high": 0.95,
        "mean_steps": 22.0,
    }
    overall = {
        "held_out_loss": 0.41,
        "action_error_deg": 3.5,
        "success_rate_seen": rate,
        "success_rate_unseen": None,
        "successes": 3,
        "rollouts": 4,
    }
    check = {"name": "joint ranges, held-out", "unit": "share of actions", "limit": 0.0, "worst": 0.0, "passed": True}
    safety = {"passed": True, "checks": [check | {"joint": None}]}
    content = json.loads((root / "results/federation/run.json").read_text())
    return {
        "models": {
            "base": {"path": "models/nano-base", "digest": "base-digest"},
            "global": {**content["checkpoints"]["best"], "round": 2},
        },
        "tasks": {
            "red-cube": {
                "role": "site",
                "sentence": "touch the red cube",
                "base": task | {"action_error_deg": 9.0, "success_rate": 0.0},
                "global": task,
            }
        },
        "overall": {"base": overall | {"action_error_deg": 9.0, "success_rate_seen": 0.0}, "global": overall},
        "safety": {"base": safety, "global": safety},
        "videos": [],
    }


def judged(won: Sequence[bool], errors: Sequence[float]) -> dict[str, Any]:
    """What `evaluate` says of a model on a task: one rollout each from seed 100000 on, held-out episodes from 4 on."""
    return {
        "held_out_loss": 0.4,
        "action_error_deg": sum(errors) / len(errors),
        "action_error_deg_by_joint": {"shoulder_pan": 3.0},
        "episode_errors_deg": {str(4 + at): error for at, error in enumerate(errors)},
        "held_out_frames": 20,
        "rollouts": len(won),
        "successes": sum(won),
        "success_rate": sum(won) / len(won) if won else None,
        "success_low": 0.3 if won else None,
        "success_high": 0.95 if won else None,
        "mean_steps": 22.0 if won else None,
        **({"outcomes": {str(100_000 + at): success for at, success in enumerate(won)}} if won else {}),
    }


def every(share: float, scenes: int = 50) -> list[bool]:
    """Successes in a share of the scenes, evenly spread: a larger share wins wherever a smaller one does not lose."""
    return [int((at + 1) * share + 1e-9) > int(at * share + 1e-9) for at in range(scenes)]


class Files:
    """Writers of result files."""

    @staticmethod
    def evaluated(
        root: Path,
        tasks: Mapping[str, tuple[Sequence[bool], Sequence[bool]]],
        safe: bool = True,
        base_digest: str = "base-digest",
        errors: tuple[Sequence[float], Sequence[float]] = ((9.0, 8.0, 9.5), (3.0, 2.5, 3.5)),
        settings: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """An evaluation of the run's best model: task to outcomes of base and global model, scene by scene."""
        content = evaluation(root)
        content["models"]["base"]["digest"] = base_digest
        content["settings"] = settings or {"max_steps": 30, "actions_per_look": 4}
        content["tasks"] = {
            task: {
                "role": "unseen" if task == "purple-cylinder" else "site",
                "sentence": f"touch the {task.replace('-', ' ')}",
                "source": f"sim:touch-{task}",
                "digest": f"{task}-digest",
                "base": judged(base, errors[0]),
                "global": judged(new, errors[1]),
            }
            for task, (base, new) in tasks.items()
        }
        check = {"name": "joint speed, rollouts", "unit": "times", "limit": 3.0, "worst": 2.0 if safe else 5.0}
        content["safety"]["global"] = {"passed": safe, "checks": [check | {"passed": safe, "joint": "gripper"}]}
        write_json(root / "results/evaluation.json", content)
        return content

    @staticmethod
    def next_run(root: Path, day: int) -> None:
        """Another federated run, which ended on that day of March; its best checkpoint is another model."""
        (root / "checkpoints/best/note.txt").write_text(f"trained on day {day}")
        Files.run(root, started=f"2026-03-{day:02d}T10:00:00+00:00", ended=f"2026-03-{day:02d}T10:00:30+00:00")

    @staticmethod
    def run(root: Path, **changed: Any) -> None:
        """What `federate` writes, around the checkpoints that are there."""
        write_json(root / "results/federation/run.json", run(root / "checkpoints") | changed)
        write_text(root / "results/federation/rounds.jsonl", "\n".join(json.dumps(line) for line in rounds()))

    @staticmethod
    def later(root: Path, success_rate: float = 0.75) -> None:
        """What the stages after it write."""
        write_json(root / "results/evaluation.json", evaluation(root, success_rate))
        row = {"name": "optimiser step", "value": 0.11, "unit": "s", "p50": 0.1, "p95": None, "detail": "batch 16"}
        benchmark = {"created": "2026-03-01T11:00:00+00:00", "machine": {}, "rows": [row]}
        write_json(root / "results/benchmark.json", benchmark)
        write_text(root / "results/report.html", "<html>the report</html>")


@pytest.fixture(scope="session")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; making one takes MLflow seconds."""
    from zk0.tracking.store import opened

    root = tmp_path_factory.mktemp("store")
    with opened(root, create=True) as client:
        client.search_experiments()
    return root


@pytest.fixture
def trained(_store: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project after `federate`, not tracked yet; the working directory."""
    root = tmp_path / "project"
    shutil.copytree(_store, root)
    _write_checkpoints(root, checkpoint)
    Files.run(root)
    monkeypatch.chdir(root)
    return root


def _write_checkpoints(root: Path, checkpoint: Path) -> None:
    for which in ("best", "last"):
        shutil.copytree(checkpoint, root / "checkpoints" / which)
    # Another model by its digest, without the time to build one.
    (root / "checkpoints/last/note.txt").write_text("the last round's")


@pytest.fixture(scope="session")
def _tracked(_store: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from zk0.tracking.project import track

    root = tmp_path_factory.mktemp("tracked") / "project"
    shutil.copytree(_store, root)
    _write_checkpoints(root, checkpoint)
    Files.run(root)
    track(root, "zk0", "zk0-smolvla")
    return root


@pytest.fixture
def tracked(_tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a tracked project: artifacts are found although the path is another."""
    root = tmp_path / "tracked"
    shutil.copytree(_tracked, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def spread() -> Callable[..., list[bool]]:
    """Successes in a share of the scenes."""
    return every


@pytest.fixture
def files() -> type[Files]:
    """Writers of result files."""
    return Files


@pytest.fixture
def content() -> Callable[[Path], dict[str, str]]:
    """Reads everything a project's store holds: every database line, every artifact's digest."""

    def read(root: Path) -> dict[str, str]:
        with closing(sqlite3.connect(root / "mlflow.db")) as database:
            lines = "\n".join(database.iterdump())
        paths = [path for path in (root / "mlruns").rglob("*") if path.is_file()]
        return {"mlflow.db": lines} | {path.relative_to(root).as_posix(): digest_file(path) for path in paths}

    return read
