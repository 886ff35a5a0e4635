"""Where the files of a run are, below the project's folder. Nothing is imported here, for whoever only reads them."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path("results/federation")
RUN = RESULTS / "run.json"
ROUNDS = RESULTS / "rounds.jsonl"
EVENTS = RESULTS / "events.jsonl"
ENVIRONMENT = Path("results/environment.json")
EVALUATION = Path("results/evaluation.json")
BENCHMARK = Path("results/benchmark.json")
TRACKING = Path("results/tracking.json")
REPORT = Path("results/report.html")
RECORDING_PAGES = Path("results/data-check")
DEPLOYMENT = Path("results/deployment.json")
SITE_SUMMARY = Path("results/site/summary.json")
COMPARISON = Path("results/studies/comparison/summary.json")
CHECKPOINTS = Path("checkpoints")
STATES = Path("state")

# The stage, and so the command of `zk0`, that writes each.
MAKERS = {
    ENVIRONMENT: "validate",
    RUN: "federate",
    ROUNDS: "federate",
    EVENTS: "federate",
    EVALUATION: "evaluate",
    BENCHMARK: "benchmark",
    TRACKING: "track",
    DEPLOYMENT: "deploy",
    SITE_SUMMARY: "client join",
    COMPARISON: "study comparison",
}
