"""Params of the smallest study of nights: four tasks and an unseen one, one round a night, an untrained policy."""

from __future__ import annotations

from typing import Any

WEEK: dict[str, Any] = {
    "seed": 1,
    "threads": 1,
    "policy": {"base": "random:nano"},
    "data": {
        "sites": {
            "red": "sim:push-red-cube-left",
            "green": "sim:push-green-ball-right",
            "bar": "sim:pull-blue-bar",
            "disc": "sim:press-magenta-disc",
        },
        "unseen": {"purple": "sim:push-purple-cylinder-left"},
        "episodes": 8,
        "held_out": 0.75,
    },
    "training": {"local_steps": 1, "batch": 2, "warmup_steps": 0},
    "federation": {"rounds": 4},
    "evaluation": {"loss_draws": 1, "rollouts": 2, "max_steps": 4},
    "study": {"training_seeds": [1], "scenes": 2},
    "promotion": {"metric": "action_error_deg", "site_margin": 90.0, "confidence": 0.51, "require_safe": False},
}
