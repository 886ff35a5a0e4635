"""Params of the smallest study: two simulated sites of three episodes, one unseen task, an untrained policy."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "seed": 1,
    "threads": 1,
    "policy": {"base": "random:nano"},
    "data": {
        "sites": {"red": "sim:push-red-cube-left", "disc": "sim:press-magenta-disc"},
        "unseen": {"purple": "sim:push-purple-cylinder-left"},
        "episodes": 3,
        "held_out": 0.34,
    },
    "training": {"local_steps": 2, "batch": 4, "warmup_steps": 0},
    "federation": {"rounds": 2},
    "evaluation": {"loss_draws": 1, "rollouts": 2, "max_steps": 5},
    "study": {
        "training_seeds": [1, 2],
        "scenes": 3,
        "personal_steps": 4,
        "variants": {"int8": {"federation.uplink": "int8"}},
    },
}
