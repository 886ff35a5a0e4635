"""The ServerApp of a federation over a network: the rounds of every engine, on a SuperLink's Grid."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
from filelock import FileLock, Timeout
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from zk0.errors import StageError
from zk0.federation import answers
from zk0.federation.discovery import misfits
from zk0.federation.flower import HttpGrid
from zk0.federation.run import run_federation
from zk0.federation.server import FederationError
from zk0.federation.start import locked_base, locked_shrink, warm_start
from zk0.network.security.files import Places
from zk0.network.security.sites import SiteRegistry
from zk0.network.server.control import members_of
from zk0.network.server.grid import NetworkGrid
from zk0.network.server.roll_call import RollCall
from zk0.network.server.services import FederationServer
from zk0.network.server.wanted import INTERRUPTED, sites_were_away
from zk0.params import PARAMS_FILE, load_params
from zk0.records.paths import STATES
from zk0.services.process import RUN
from zk0.so100 import JOINTS

LOG = RUN / "serverapp.log"

# A run that was stopped ends at its next word with the SuperLink.
_LOCK_S = 60.0

_log = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or continue the federation of the project that the run's config names.

    Raises:
        StageError: Another run is in progress there, or no site is admitted.
        FederationError: As :func:`zk0.federation.run.run_federation`.
    """
    root = Path(str(context.run_config["project"])).resolve()
    kept = logging.FileHandler(root / LOG, delay=True)
    kept.setLevel(logging.WARNING)
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(kept)
    try:
        _run(grid, root, context.run_config)
    except httpx.HTTPError as error:
        raise StageError(f"{INTERRUPTED}the SuperLink was away ({error})") from error
    except FederationError as error:
        if sites_were_away(root):
            raise FederationError(f"{INTERRUPTED}{error}") from error
        _log.exception("the run ended")
        raise
    except Exception:
        _log.exception("the run ended")  # Flower passes on the message alone
        raise


def _run(grid: Grid, root: Path, settings: Mapping[str, Any]) -> None:
    import torch  # noqa: PLC0415 - slow, and only a run needs it

    params = load_params(root / PARAMS_FILE)
    torch.set_num_threads(params.threads)
    registry = SiteRegistry(Places(root / str(settings["security"])).registry)
    members = members_of(registry.sites(), [name for name in str(settings["sites"]).split(",") if name])
    base = locked_base(root)
    start = warm_start(root, params, base[0])
    uplink = params.federation.uplink
    network = NetworkGrid(
        cast(HttpGrid, grid),
        [site.node_id for site in members if site.node_id is not None],
        lambda node: registry.of_node(node) is not None,
        lambda kind: answers.payload_bytes(answers.wanted(kind, start.first, uplink, len(JOINTS))),
        FederationServer(root, Path(str(settings["security"]))),
    )
    wait_s, least = float(cast(float, settings["wait-s"])), int(cast(int, settings["min-sites"]))
    fitting = partial(misfits, loaded=start.start, missing=params.data.missing_cameras)
    call = RollCall(root, params, base[1], members, network, wait_s, least, fitting)
    (root / STATES).mkdir(exist_ok=True)
    try:
        with FileLock(root / STATES / "network.lock", timeout=_LOCK_S):
            run_federation(network, root, params, base, gather=call, shrink=locked_shrink(root))
    except Timeout as error:
        raise StageError(f"another run of {root} is in progress; `zk0 server status` tells") from error
