"""The engine that serves a run's sites: this process, one after the other, or workers side by side on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from zk0.federation.attacks import Attack, poisoned
from zk0.federation.client_app import app as honest
from zk0.federation.client_app import noted
from zk0.federation.inprocess import InProcessGrid
from zk0.params import Params
from zk0.records.journal import Journal
from zk0.records.paths import EVENTS

Liar = tuple[int, Attack]


@contextmanager
def engine_for(root: Path, params: Params, partitions: int, liar: Liar | None = None) -> Iterator[Grid]:
    """The Grid that ``params.engine`` asks for; what it starts ends with the block.

    Args:
        root: Project folder.
        params: The run's.
        partitions: How many sites.
        liar: The partition of a site that lies, and how.

    Raises:
        StageError: The engine cannot be had: Ray is missing, or too little room.
    """
    app, journal, limit = partial(_app, liar), Journal(root / EVENTS), params.data.decoded_limit_bytes
    if params.engine.name == "inprocess":
        yield InProcessGrid(noted(app(), journal), root, partitions, limit)
        return
    from zk0.federation.scale.cluster import cluster_for  # noqa: PLC0415 - Ray is an extra
    from zk0.federation.scale.grid import RayGrid  # noqa: PLC0415
    from zk0.federation.scale.worker import Project  # noqa: PLC0415

    with cluster_for(params, partitions) as cluster:
        yield RayGrid(cluster, Project(root.resolve(), partitions, limit, params.threads, app), journal)


def _app(liar: Liar | None) -> ClientApp:
    return poisoned(honest, *liar) if liar else honest
