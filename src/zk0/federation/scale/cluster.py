"""A Ray cluster for a run: one that is there, or one of this machine alone that ends with the run.

Where the workers lie is settled before any starts, by one of Ray's placement groups: all of them fit, or the run is
refused. So nothing waits for a core or a GPU that never comes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from zk0 import runtime_env
from zk0.console import console
from zk0.errors import StageError
from zk0.params import Params
from zk0.policy.start import GPU_SHARE

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
except ImportError as missing:
    raise StageError(
        "engine.name ray needs Ray, which is not installed: install zk0 with its extra, `zk0[scale]`, or set "
        "engine.name to inprocess"
    ) from missing

_HOMES = Path("/tmp")  # TMPDIR may be long, and the path of a Unix socket has 107 characters at most
_HOME = "zk0-ray-"
_ROOM_S = 60.0  # for others on a shared cluster to make room
_ANSWER_S = 5.0  # of a cluster's port
_END_S = 10.0
_LONGEST = 300  # characters of a reason
MOST_LOST = 3  # workers on the same work: one that takes all memory, say, would cost every worker
UP_S = 600.0  # for a worker to come up: it loads torch and LeRobot


class EngineError(StageError):
    """The cluster is not there, has too little room, or lost what it needs to go on."""


class _Maker:
    """An actor that calls a function."""

    def __init__(self, make: Callable[[Any], Any], threads: int) -> None:
        runtime_env.switch_off()
        torch.set_num_threads(threads)
        self._make = make

    def make(self, item: Any) -> Any:
        return self._make(item)


@dataclass(frozen=True)
class Cluster:
    """Room for workers on a cluster.

    Attributes:
        workers: How many.
        cpus, gpus: Of each.
        threads: Of each one's arithmetic.
        environment: Variables of each.
        group: Ray's placement group, a bundle for each.
    """

    workers: int
    cpus: int
    gpus: float
    threads: int
    environment: Mapping[str, str]
    group: Any

    def start(self, kind: type, slot: int, *arguments: Any) -> Any:
        """Start an actor in the place of one worker; it comes up while the caller goes on.

        Args:
            kind: The actor's class.
            slot: Which place, from 0.
            arguments: Of the class.
        """
        place = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=slot)
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "scheduling_strategy": place}
        return ray.remote(kind).options(**options, runtime_env={"env_vars": dict(self.environment)}).remote(*arguments)

    def beside(self, kind: type, *arguments: Any) -> Any:
        """Start an actor on this very machine, outside of the workers' places; it is to wait more than to work."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return ray.remote(kind).options(num_cpus=0, scheduling_strategy=here).remote(*arguments)

    def each[T](self, make: Callable[[Any], T], items: Sequence[Any]) -> Iterator[tuple[int, T]]:
        """Call a function with every item, in actors that each do so one at a time; yield results with items' numbers.

        An actor that is lost is replaced, and what it made is made anew.

        Args:
            make: What to call; it is sent to the actors, with all that belongs to it.
            items: With what.

        Raises:
            EngineError: All actors are lost and none comes up, or an item has cost several. What goes wrong in one is
                raised as it is there.
        """
        coming = dict[Any, tuple[int, Any]]()  # until they are up, to place and actor
        idle, asked, lost = list[tuple[int, Any]](), dict[Any, tuple[int, int, Any]](), dict[int, int]()
        waiting = list(enumerate(items))

        def begin(slot: int) -> None:
            actor = self.start(_Maker, slot, make, self.threads)
            coming[actor.__ray_ready__.remote()] = slot, actor

        for slot in range(min(self.workers, len(items))):
            begin(slot)
        while waiting or asked:
            while waiting and idle:
                (number, item), (slot, actor) = waiting.pop(0), idle.pop()
                asked[actor.make.remote(item)] = number, slot, actor
            ready, _ = ray.wait([*asked, *coming], num_returns=1, timeout=None if asked else UP_S)
            if not ready:
                raise EngineError(f"all workers are lost, and for {UP_S:g} s no machine had room for others")
            if ready[0] in coming:
                idle.append(self._up(ready[0], coming.pop(ready[0])))
                continue
            number, slot, actor = asked.pop(ready[0])
            try:
                made = ray.get(ready[0])
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                lost[number] = lost.get(number, 0) + 1
                if lost[number] == MOST_LOST:
                    raise EngineError(f"{MOST_LOST} workers were lost on the same piece: {cause_of(error)}") from error
                console.print(f"a worker is replaced: {cause_of(error)}", markup=False, style="yellow")
                waiting.insert(0, (number, items[number]))
                begin(slot)
                continue
            idle.append((slot, actor))
            yield number, made
        for _, actor in [*idle, *coming.values()]:
            ray.kill(actor)

    @staticmethod
    def _up(ready: Any, one: tuple[int, Any]) -> tuple[int, Any]:
        try:
            ray.get(ready)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise EngineError(f"a worker did not come up: {cause_of(error)}") from error
        return one


@contextmanager
def cluster_for(params: Params, most: int) -> Iterator[Cluster]:
    """A cluster with room for a run's workers.

    Args:
        params: The run's; ``engine`` says where, how many and how large.
        most: How many workers there is work for.

    Raises:
        EngineError: No cluster there, or too few cores or GPUs; says how many there are.
    """
    engine, processes = params.engine, params.policy.processes
    least = params.threads * processes
    cpus, gpus = engine.cpus or least, engine.gpus * processes
    with _ray(engine.address):
        fits = sum(_fits(node, cpus, gpus) for node in ray.nodes() if node["Alive"])
        workers = min(most, engine.workers or fits)
        if not 0 < workers <= fits:
            raise EngineError(
                f"engine.workers {engine.workers or 1} with {_each(cpus, gpus)} do not fit: {_described()}, "
                f"which holds {fits}. Lower engine.workers, engine.cpus (0 takes {least}) or engine.gpus"
            )
        group = placement_group([_bundle(cpus, gpus)] * workers, strategy="PACK")
        try:
            if not group.wait(_ROOM_S):
                raise EngineError(
                    f"{workers} workers with {_each(cpus, gpus)} would fit on the cluster, but others held what "
                    f"they need for {_ROOM_S:g} s; wait for them, or lower engine.workers"
                )
            yield Cluster(workers, cpus, gpus, params.threads, _environment(params), group)
        finally:
            remove_placement_group(group)


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Ray, connected within the block; without an address a cluster of its own, of which nothing is left afterwards."""
    before, home = set(psutil.Process().children(recursive=True)), None
    options: dict[str, Any] = {"address": address}
    if address is None:
        _remove_leftovers()
        home = tempfile.mkdtemp(prefix=f"{_HOME}{os.getpid()}-", dir=_HOMES if _HOMES.is_dir() else None)
        # Without a dashboard: it needs packages that nothing else here does.
        options = {"address": "local", "include_dashboard": False, "_temp_dir": home}
        # Ray would run workers at niceness 15, at which they starve beside anything else on the machine.
        options["_system_config"] = {"worker_niceness": 0}
    try:
        _connect(address, options)
        yield
    finally:
        started = set(psutil.Process().children(recursive=True)) - before
        ray.shutdown()
        if home is not None:
            _, alive = psutil.wait_procs(started, timeout=_END_S)
            for process in alive:
                process.kill()
            psutil.wait_procs(alive, timeout=_END_S)
            shutil.rmtree(home, ignore_errors=True)


def _connect(address: str | None, options: Mapping[str, Any]) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address not in (None, "auto"):  # Ray would try for minutes
            host, _, port = str(address).rpartition(":")
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of GPUs that later releases will not hide
            ray.init(**options, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, TimeoutError, socket.gaierror) as error:
        raise EngineError(
            f"there is no Ray cluster at engine.address {address}, as seen from this machine; start one with "
            "`ray start`, here too, or set it to null for one on this machine alone"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own in this one's place


def _remove_leftovers() -> None:
    """Of runs that were killed: their processes went with them, and their folders stayed."""
    for folder in _HOMES.glob(f"{_HOME}*-*"):
        process = folder.name.removeprefix(_HOME).partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)) and folder.owner() == Path.home().owner():
            shutil.rmtree(folder, ignore_errors=True)


def _environment(params: Params) -> dict[str, str]:
    """What this process has set for its libraries, on other machines too, and a worker's part of a GPU's memory."""
    names = [*runtime_env.SETTINGS, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    found = {name: os.environ[name] for name in names if name in os.environ}
    found["OMP_NUM_THREADS"] = str(params.threads)  # Ray would set it to the worker's cores
    if 0 < params.engine.gpus < 1:
        found[GPU_SHARE] = str(params.engine.gpus)
    return found


def cause_of(error: Exception) -> str:
    """The last line of what Ray tells of an error, in which it comes to the point."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else type(error).__name__


def _bundle(cpus: int, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _fits(node: Mapping[str, Any], cpus: int, gpus: float) -> int:
    """How many workers a machine holds; a worker has whole GPUs or a part of one."""
    resources = node["Resources"]
    by_cpus = int(resources.get("CPU", 0) / cpus)
    there = int(resources.get("GPU", 0))
    return min(by_cpus, there // int(gpus) if gpus >= 1 else there * int(1 / gpus + 1e-9)) if gpus else by_cpus


def _each(cpus: int, gpus: float) -> str:
    return f"{cpus} CPU cores" + (f" and {gpus:g} GPU" if gpus else "") + " each"


def _described() -> str:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"the cluster has {cpus:g} CPU cores and {gpus:g} GPUs on {len(nodes)} machine{'s' * (len(nodes) > 1)}"
