"""The engine that serves a run's sites: this process, one after the other, or workers side by side on Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from zk0.federation.client_app import app as honest
from zk0.federation.client_app import noted
from zk0.federation.inprocess import InProcessGrid
from zk0.params import Params
from zk0.records.journal import Journal
from zk0.records.paths import EVENTS, STATES


@contextmanager
def engine_for(
    root: Path, params: Params, partitions: int, app: Callable[[], ClientApp] = lambda: honest
) -> Iterator[Grid]:
    """The Grid that ``params.engine`` asks for; what it starts ends with the block.

    Args:
        root: Project folder.
        params: The run's.
        partitions: How many sites.
        app: Makes the sites' ClientApp, wherever they are; to be of a module, or a partial of one that is.

    Raises:
        StageError: The engine cannot be had: Ray is missing, or too little room.
    """
    journal, limit, processes = Journal(root / EVENTS), params.data.decoded_limit_bytes, params.policy.processes
    if params.engine.name == "inprocess":
        yield InProcessGrid(noted(app(), journal), root, partitions, limit, processes)
        return
    from zk0.federation.scale.cluster import cluster_for  # noqa: PLC0415 - Ray is an extra
    from zk0.federation.scale.grid import RayGrid  # noqa: PLC0415
    from zk0.federation.scale.mirror import Library  # noqa: PLC0415
    from zk0.federation.scale.worker import Project  # noqa: PLC0415

    (root / STATES).mkdir(exist_ok=True)
    with (
        cluster_for(params, partitions) as cluster,
        tempfile.NamedTemporaryFile(dir=root / STATES, prefix="engine-") as token,
    ):
        library = cluster.beside(Library, root.resolve()) if params.engine.address else None
        place, known = root.resolve(), Path(token.name).resolve()
        project = Project(place, partitions, limit, params.threads, processes, app, known, library)
        yield RayGrid(cluster, project, journal)
