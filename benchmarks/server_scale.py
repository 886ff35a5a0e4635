"""The server at scale: ten thousand sites on Ray, and many nodes on one SuperLink, for what grows with the rounds.

``python -m benchmarks.server_scale`` prints both as tables; sites are stand-ins that do not train (:mod:`.standin`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psutil
import typer

from benchmarks.harness import Quick
from benchmarks.pieces import LOGS, isolated
from benchmarks.projects import CACHE, demo_params, params_of, use_params
from zk0.console import console
from zk0.files import write_json
from zk0.params import Params
from zk0.records.paths import EVENTS, ROUNDS, STATES
from zk0.records.run import Event

STANDIN = "standin.json"


class Sample(TypedDict):
    """After a round: its seconds; bytes of memory and open files of processes by name; bytes of files by name."""

    round: int
    seconds: float
    memory: dict[str, int]
    files: dict[str, int]
    disk: dict[str, int]


def crowd_params(**federation: Any) -> Params:
    """Params of stand-ins, whose policy is the smallest."""
    return demo_params(
        policy={"base": "random:nano"},
        training={"local_steps": 2, "batch": 4, "warmup_steps": 0},
        federation={"min_replies": 1.0, **federation},
    )


def lay_out(root: Path, params: Params, sites: int) -> None:
    """A project of so many stand-ins, with manifests of data that is nowhere."""
    from benchmarks.standin import Standin, manifest_of  # noqa: PLC0415 - as below
    from zk0.data.manifest import Manifest, write_manifest  # noqa: PLC0415
    from zk0.policy.start import load_start  # noqa: PLC0415 - it loads torch, which a table does not need
    from zk0.policy.trainable import digest_tensors, trainable_tensors  # noqa: PLC0415
    from zk0.sources_lock import resolve_policy  # noqa: PLC0415

    use_params(root, params)
    policy_now = resolve_policy(params, root, {"source": "", "digest": ""})
    write_json(root / "sources.lock.json", {"sources": {}, "unseen": {}, "policy": policy_now})
    policy = load_start(root, params.policy.base, "cpu").policy
    pictures = {name: tuple(feature.shape) for name, feature in policy.config.image_features.items()}
    changes = {"cameras": tuple(pictures), "image_shapes": pictures, "fps": params.data.fps}
    tensors = trainable_tensors(policy)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    Standin(shapes, digest_tensors(tensors), **changes).write(root / STANDIN)
    for partition in range(sites):
        told = {**manifest_of(partition, **changes), "episode_digests": {}}
        write_manifest(root, Manifest.model_validate(told))


class Sampler:
    """Takes a sample after each round.

    Args:
        root: The project.
        folders: Files and folders to measure, by name.
    """

    def __init__(self, root: Path, folders: dict[str, Path]) -> None:
        self._root, self._folders = root, folders
        self.samples: list[Sample] = []
        self._began = time.perf_counter()

    def take(self, event: Event, processes: dict[str, psutil.Process]) -> None:
        """Note how things are, if the event is that a round was saved."""
        if event.event != "save":
            return
        now = time.perf_counter()
        memory, files = dict[str, int](), dict[str, int]()
        for name, process in processes.items():
            with suppress(psutil.Error):  # it has just ended
                memory[name], files[name] = process.memory_full_info().uss, process.num_fds()
        disk = {name: _bytes_of(self._root / path) for name, path in self._folders.items()}
        seconds, self._began = now - self._began, now
        self.samples.append(Sample(round=event.round or 0, seconds=seconds, memory=memory, files=files, disk=disk))
        print(json.dumps(self.samples[-1]), os.getloadavg(), flush=True)  # into the log


def crowd(*, root: str, workers: int) -> list[Sample]:
    """Run a project of stand-ins on Ray, and take a sample of this process after each round.

    Args:
        root: The project, laid out; params say what to run.
        workers: Ray's, whose processes are not counted.
    """
    from benchmarks.federations import on_engine  # noqa: PLC0415 - it loads torch
    from benchmarks.standin import app_of  # noqa: PLC0415 - it loads Flower
    from zk0.data.manifest import read_manifests  # noqa: PLC0415
    from zk0.federation.engine import engine_for  # noqa: PLC0415 - it loads torch
    from zk0.federation.run import run_federation  # noqa: PLC0415
    from zk0.federation.start import locked_base  # noqa: PLC0415

    folder, params = Path(root), on_engine(params_of(root), workers)
    sampler = Sampler(folder, {"events": EVENTS, "rounds": ROUNDS, "state": STATES})
    this = {"server": psutil.Process()}
    count = len(read_manifests(folder)[0])
    with engine_for(folder, params, count, partial(app_of, folder / STANDIN)) as grid:
        run_federation(grid, folder, params, locked_base(folder), lambda event: sampler.take(event, this))
    return sampler.samples


@contextmanager
def nodes(server: Any, root: Path, count: int) -> Iterator[None]:
    """So many nodes of a server, admitted and connected, in a process of their own."""
    from zk0.network.security.keys import NodeKey  # noqa: PLC0415
    from zk0.network.security.sites import SiteRegistry  # noqa: PLC0415

    folders = [root / "keys" / f"{place:04d}" for place in range(count)]
    for place, folder in enumerate(folders):
        SiteRegistry(server.places.registry).admit(f"site-{place:05d}", NodeKey.create(folder, folder.name).public)
    server.sync()
    words = [sys.executable, "-m", "benchmarks.nodes", server.gateway_url.removeprefix("https://"), server.authority]
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "nodes.log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, words), str(root / STANDIN), *map(str, folders)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()


def deployment(*, root: str, count: int) -> list[Sample]:
    """Run a project of stand-ins over SuperLink and gateway, and take a sample of each service after each round.

    Args:
        root: The project, laid out.
        count: How many nodes.
    """
    from zk0.network.client.node import free_port  # noqa: PLC0415
    from zk0.network.security.files import initialise  # noqa: PLC0415
    from zk0.network.server.resume import watch  # noqa: PLC0415
    from zk0.network.server.runs import submit  # noqa: PLC0415
    from zk0.network.server.services import FederationServer  # noqa: PLC0415
    from zk0.network.server.steps import prepare  # noqa: PLC0415

    folder = Path(root)
    initialise(folder / "security", ["127.0.0.1"], "benchmark")
    server = FederationServer(folder)
    upstream = f"https://127.0.0.1:{free_port()}"
    server.start(host="127.0.0.1", port=free_port(), upstream=upstream, connections_per_address=256)
    with ExitStack() as stack:
        stack.callback(server.stop)
        stack.enter_context(nodes(server, folder, count))
        places = {"events": EVENTS, "rounds": ROUNDS, "state": STATES, "messages": Path(".run/superlink")}
        sampler = Sampler(folder, places)
        prepare(server)
        for event in watch(server, submit(server, wait_s=60.0)):
            sampler.take(event, _services(server))
    return sampler.samples


def _services(server: Any) -> dict[str, psutil.Process]:
    """The server's processes by name, its ServerApp among them."""
    found = {name: process for name, process in server.services.running().items() if name in ("superlink", "gateway")}
    for process in server.services.running()["superexec"].children(recursive=True):
        with suppress(psutil.Error):
            if "flwr-serverapp" in " ".join(process.cmdline()):
                found["ServerApp"] = process
    return found


def _bytes_of(path: Path) -> int:
    """On disk, of a file or of all below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(one.stat().st_size for one in files if one.is_file())


def table(samples: Sequence[Sample], most: int = 12) -> str:
    """Samples as a Markdown table; of many, some."""
    step = max(1, len(samples) // most)
    names = {kind: list(samples[-1][kind]) for kind in ("memory", "files", "disk")}
    head = ["round", "s", *(f"{n}, MB" for n in names["memory"]), *(f"{n}, files" for n in names["files"])]
    head += [f"{n}, MB on disk" for n in names["disk"]]
    lines = ["| " + " | ".join(head) + " |", "|" + " --: |" * len(head)]
    for sample in [*samples[: len(samples) - 1 : step], samples[-1]]:
        cells = [str(sample["round"]), f"{sample['seconds']:.1f}"]
        cells += [f"{sample['memory'].get(n, 0) / 1e6:.0f}" for n in names["memory"]]
        cells += [str(sample["files"].get(n, 0)) for n in names["files"]]
        cells += [f"{sample['disk'][n] / 1e6:.2f}" for n in names["disk"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(target: str, sites: int, params: Params, **arguments: Any) -> list[Sample]:
    """Lay a project out, and measure it in a process of its own."""
    CACHE.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="scale-", dir=CACHE)).resolve()
    try:
        lay_out(root, params, sites)
        found: list[Sample] = isolated(f"benchmarks.server_scale:{target}", root=str(root), **arguments)
        return found
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main(
    quick: Quick = False,
    sites: Annotated[int, typer.Option(help="On Ray; 0 leaves it out.")] = 10_000,
    share: Annotated[
        float, typer.Option(help="Of the sites, drawn in a second run, beside as many sites alone.")
    ] = 0.05,
    rounds: Annotated[int, typer.Option(help="On Ray.")] = 3,
    workers: Annotated[int, typer.Option(help="Ray's.")] = 2,
    nodes: Annotated[int, typer.Option(help="On one SuperLink; 0 leaves it out.")] = 32,
    node_rounds: Annotated[int, typer.Option(help="Over the SuperLink.")] = 50,
) -> None:
    """Measure the server at scale, and print tables."""
    if quick:
        sites, share, rounds, nodes, node_rounds = min(sites, 200), 0.1, 2, min(nodes, 4), 5
    few = round(sites * share)
    for count, drawn in ((sites, 1.0), (sites, share), (few, 1.0)) if sites else ():
        params = crowd_params(rounds=rounds, fraction=drawn, judges=drawn)
        told = f"{count} sites" + (f", {few} drawn" if drawn < 1 else "")
        console.print(f"{told}, on Ray with {workers} workers\n", markup=False)
        console.print(table(measured("crowd", count, params, workers=workers)), markup=False, soft_wrap=True)
    if nodes:
        console.print(f"{nodes} nodes on one SuperLink\n", markup=False)
        found = measured("deployment", 0, crowd_params(rounds=node_rounds), count=nodes)
        console.print(table(found), markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
