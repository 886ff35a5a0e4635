"""The trainer: a site's own service, which keeps policy, data and features loaded while messages come and go.

Flower's SuperNode starts a process for every message. Loading torch and SmolVLA in each would take longer than the
training itself, so that process only hands its message over to the trainer, by a socket that nobody but the site's
user can open: see :mod:`zk0.network.client.app` for the one end, and for the other
:mod:`zk0.network.client.trainer.service`.
"""

from __future__ import annotations

from pathlib import Path

# What the trainer did, one line each, in the site's folder.
EVENTS = Path("results/site/events.jsonl")
