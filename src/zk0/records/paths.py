"""Where a federation's files are, below the project's folder. Nothing is imported here, for whoever only reads them."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path("results/federation")
EVENTS = "events.jsonl"
CHECKPOINTS = Path("checkpoints")
STATES = Path("state")
