"""Trainers of sites as processes of their own, and messages for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from flwr.app import Context, Message, RecordDict
from network_services import Service, service, wait_until

from zk0.federation import protocol, wire
from zk0.federation.broadcast import Model
from zk0.federation.inprocess import LocalGrid
from zk0.federation.statistics import pack_stats
from zk0.files import read_json, write_json, write_text
from zk0.network.client import channel
from zk0.params import Params
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import Tensors


def lay_out_site(prepared: Path, root: Path, params: dict[str, Any]) -> Path:
    """A folder with what a trainer reads: params, lock and manifests; recordings are read where they are."""
    for manifest in (prepared / "data" / "manifests").iterdir():
        write_json(root / "data" / "manifests" / manifest.name, read_json(manifest))
    write_json(root / "sources.lock.json", read_json(prepared / "sources.lock.json"))
    write_text(root / "params.yaml", yaml.safe_dump(params))
    return root


@contextmanager
def trainer(root: Path, partition: int) -> Iterator[Service]:
    """A partition's trainer, until the block ends."""
    words = [sys.executable, "-m", "zk0.network.client", "--project", root, "--partition", str(partition)]
    with service(words, root / f"trainer-{partition}.log") as running:
        wait_until(lambda: answers(root, partition) or running.process.poll() is not None, f"trainer {partition}", 120)
        assert running.process.poll() is None, running.text
        yield running


def answers(root: Path, partition: int) -> bool:
    """Whether a trainer listens."""
    try:
        with channel.connected(channel.socket_path(root, partition)):
            return True
    except OSError:
        return False


def node(root: Path, partition: int) -> Context:
    """What Flower hands the ClientApp of a site."""
    return Context(1, partition + 1, {"project": str(root), "partition-id": partition}, RecordDict(), {})


def message(kind: str, header: protocol.Header, partition: int = 0, **values: Any) -> Message:
    """A server's message to the site of a partition."""
    LocalGrid(1, lambda message: message)  # tells Flower whose process this is
    content = RecordDict()
    protocol.write(content, header, **values)
    sent = Message(content, partition + 1, kind, group_id=str(header.round))
    sent.metadata.__dict__["_message_id"] = f"{kind}-{header.round}"
    return sent


def site_task(params: Params, base: tuple[str, str], partition: int = 0, **changes: Any) -> protocol.SiteTask:
    """A task of the first round."""
    settings: dict[str, Any] = {
        "run": "test",
        "round": 1,
        "partition": partition,
        "seed": params.seed,
        "base": base[0],
        "base_digest": base[1],
        "device": params.policy.device,
        "features": params.features,
        "training": params.training,
        "decay_steps": params.decay_steps,
        "proximal_mu": 0.0,
        "evaluation": params.evaluation,
    }
    return protocol.SiteTask(**(settings | changes))


def with_model(task: protocol.SiteTask, kind: str, start: Tensors, stats: Stats) -> Message:
    """A message with a whole model and the common normalisation."""
    content = RecordDict()
    told = Model.of(start).put(content, None)
    made = message(kind, task, task.partition, **{protocol.MODEL: told})
    made.content.update(content)
    wire.put(made.content, protocol.STATS, wire.encode(pack_stats(stats)))
    return made
