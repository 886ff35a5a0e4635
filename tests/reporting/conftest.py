"""A project's results, small but in the stages' own formats, for the report to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zk0.files import read_json, write_bytes, write_json, write_text

SITES = {"red-cube": "touch the red cube", "green-ball": "touch the green ball"}
JOINTS = ("shoulder_pan", "elbow_flex", "gripper")
Editor = Callable[[str, Callable[[Any], None]], None]


def _machine() -> dict[str, Any]:
    return {
        "platform": "Linux 6.1",
        "cpu": "Example 9000",
        "cores": 4,
        "memory_bytes": 16_000_000_000,
        "disk_free_bytes": 50_000_000_000,
        "gpus": [],
        "python": "3.12.3",
    }


def _environment() -> dict[str, Any]:
    return {
        "created": "2031-02-03T04:05:06+00:00",
        "passed": True,
        "checks": [
            {
                "name": "memory",
                "passed": True,
                "severity": "error",
                "found": "16 GB",
                "expected": "at least 4 GB",
                "advice": "close other programs",
            },
            {
                "name": "port 4200",
                "passed": False,
                "severity": "warning",
                "found": "in use",
                "expected": "free",
                "advice": "stop the other server",
            },
        ],
        "machine": _machine(),
        "packages": {"torch": "2.11.0", "lerobot": "0.6.1"},
    }


def _manifest(name: str, partition: int, role: str = "site") -> dict[str, Any]:
    return {
        "site": name,
        "partition": partition,
        "role": role,
        "source": f"sim:touch-{name}",
        "revision": None,
        "robot_type": "so101",
        "fps": 10,
        "cameras": ["observation.images.top"],
        "tasks": [SITES.get(name, "touch the purple cylinder")],
        "root": f"data/recordings/{name}",
        "train_episodes": list(range(24)),
        "held_out_episodes": list(range(24, 30)),
        "train_frames": 1234,
        "held_out_frames": 321,
        "digest": f"{partition:032x}",
    }


def _round(number: int) -> dict[str, Any]:
    def site(shift: float) -> dict[str, Any]:
        judged = {"held_out_loss": 0.9 - 0.1 * number + shift, "evaluate_s": 0.8}
        trained = {
            "examples": 480,
            "train_loss": 1.0 - 0.1 * number + shift,
            "update_norm": 0.7,
            "train_s": 7.5,
            "bytes_up": 2_000_000,
            "bytes_down": 3_000_000,
        }
        return {**judged, **trained} if number else judged

    return {
        "round": number,
        "train_loss": 1.0 - 0.1 * number if number else None,
        "held_out_loss": 0.9 - 0.1 * number,
        "learning_rate": 4.1e-4 if number else None,
        "bytes_up": 4_000_000 if number else 0,
        "bytes_down": 6_000_000 if number else 0,
        "round_s": 17.2,
        "aggregate_s": 0.01,
        "save_s": 0.02,
        "is_best": number == 3,
        "digest": f"{number:032x}",
        "left_out": {},
        "sites": {name: site(0.05 * index) for index, name in enumerate(SITES)},
    }


def _run() -> dict[str, Any]:
    return {
        "run": "0123456789abcdef",
        "started": "2031-02-03T04:10:00+00:00",
        "ended": "2031-02-03T05:15:30+00:00",
        "wall_s": 3930.0,
        "params": {
            "seed": 1,
            "policy": {"base": "models/nano-base"},
            "data": {"sites": {name: f"sim:touch-{name}" for name in SITES}, "partition": {"scheme": "none"}},
            "federation": {"strategy": "fedprox", "proximal_mu": 0.01, "rounds": 3, "weighting": "examples"},
        },
        "base": {"source": "models/nano-base", "digest": "b" * 32},
        "sites": {name: _manifest(name, index) for index, name in enumerate(SITES)},
        "unseen": {"purple-cylinder": _manifest("purple-cylinder", 2, "unseen")},
        "policy": {
            "parameters": 2_345_678,
            "trainable_parameters": 1_234_567,
            "trainable_tensors": 89,
            "trainable_bytes": 4_938_268,
        },
        "rounds": 3,
        "best_round": 3,
        "best_held_out_loss": 0.6,
        "last_held_out_loss": 0.6,
        "start_held_out_loss": 0.9,
        "resumed_at_rounds": [2],
        "stats": {"action": {"mean": [0.0] * 6, "std": [1.0] * 6}},
        "limits": {"low": [-90.0] * 6, "high": [90.0] * 6, "step": [5.0] * 6},
        "versions": {"flwr": "1.41.0"},
        "machine": _machine(),
        "git": {"revision": "c" * 40, "dirty": True},
        "checkpoints": {
            which: {"path": f"checkpoints/{which}", "digest": "d" * 32, "round": 3} for which in ("best", "last")
        },
    }


def _score(error: float, loss: float, successes: int, low: float, high: float) -> dict[str, Any]:
    return {
        "held_out_loss": loss,
        "action_error_deg": error,
        "action_error_deg_by_joint": dict.fromkeys(JOINTS, error),
        "held_out_frames": 321,
        "rollouts": 20,
        "successes": successes,
        "success_rate": successes / 20,
        "success_low": low,
        "success_high": high,
        "mean_steps": 25.5,
    }


def _evaluation() -> dict[str, Any]:
    """Global better on both sites, clearly more successful there; alike on the unseen task."""
    base, trained = _score(8.0, 0.9, 4, 0.081, 0.416), _score(5.0, 0.6, 17, 0.64, 0.948)
    tasks = {
        name: {"role": "site", "sentence": words, "base": base, "global": trained} for name, words in SITES.items()
    }
    tasks["purple-cylinder"] = {
        "role": "unseen",
        "sentence": "touch the purple cylinder",
        "base": _score(9.0, 0.95, 6, 0.145, 0.519),
        "global": _score(8.5, 0.9, 8, 0.219, 0.613),
    }
    check = {"name": "joint ranges, held-out", "unit": "degrees outside", "limit": 5.0, "worst": 1.5, "passed": True}
    videos = [
        {
            "task": "red-cube",
            "model": model,
            "seed": 100_000,
            "success": model == "global",
            "file": f"results/rollouts/red-cube-{model}-100000.mp4",
        }
        for model in ("base", "global")
    ]
    return {
        "models": {
            "base": {"path": "models/nano-base", "digest": "b" * 32},
            "global": {"path": "checkpoints/best", "digest": "d" * 32, "round": 3},
        },
        "tasks": tasks,
        "overall": {
            "base": {"held_out_loss": 0.92, "action_error_deg": 8.3, "successes": 14, "rollouts": 60},
            "global": {"held_out_loss": 0.7, "action_error_deg": 6.2, "successes": 42, "rollouts": 60},
        },
        "safety": {
            "base": {"passed": True, "checks": [{**check, "joint": "gripper"}]},
            "global": {"passed": True, "checks": [{**check, "joint": "elbow_flex"}]},
        },
        "videos": videos,
    }


def _benchmark() -> dict[str, Any]:
    return {
        "created": "2031-02-03T06:00:00+00:00",
        "machine": _machine(),
        "rows": [
            {
                "name": "optimiser step",
                "value": 0.1234,
                "unit": "s",
                "p50": 0.12,
                "p95": 0.15,
                "detail": "batch 16, 2 cameras 96x96",
            },
            {"name": "update", "value": 4_938_268, "unit": "bytes", "p50": None, "p95": None, "detail": "fp32"},
        ],
    }


def _events() -> list[dict[str, Any]]:
    return [
        {"time": "2031-02-03T04:10:01+00:00", "event": "round-start", "round": 1, "site": None, "message": "round 1"},
        {"time": "2031-02-03T04:30:00+00:00", "event": "resume", "round": 2, "site": None, "message": "from round 1"},
        {"time": "2031-02-03T05:15:30+00:00", "event": "done", "round": 3, "site": None, "message": "3 rounds"},
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project root with every result that the report reads."""
    root = tmp_path / "project"
    write_json(root / "results/environment.json", _environment())
    write_json(root / "results/federation/run.json", _run())
    for name, records in (("rounds", [_round(n) for n in range(4)]), ("events", _events())):
        write_text(root / f"results/federation/{name}.jsonl", "\n".join(map(json.dumps, records)))
    write_json(root / "results/evaluation.json", _evaluation())
    write_json(root / "results/benchmark.json", _benchmark())
    for model in ("base", "global"):
        write_bytes(root / f"results/rollouts/red-cube-{model}-100000.mp4", f"film of {model}".encode())
    return root


@pytest.fixture
def edit(project: Path) -> Editor:
    """Change one of the project's results: ``edit(file, change)``; JSON lines come as a list."""

    def change_file(name: str, change: Callable[[Any], None]) -> None:
        path = project / name
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in path.read_text().splitlines()]
            change(records)
            write_text(path, "\n".join(map(json.dumps, records)))
        else:
            content = read_json(path)
            change(content)
            write_json(path, content)

    return change_file
