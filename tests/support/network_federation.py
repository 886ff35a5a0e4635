"""A whole federation on 127.0.0.1: `zk0 server`'s services, and sites with real trainers and SuperNodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from network_services import BIN, Service, free_port, service, wait_until
from site_trainers import answers, lay_out_site

from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.network.security.files import initialise
from zk0.network.security.keys import NodeKey
from zk0.network.security.sites import SiteRegistry
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer, present_nodes, runs_of
from zk0.network.server.steps import prepare
from zk0.records.files import read, read_lines
from zk0.records.run import Event, Run


@dataclass
class Cable:
    """A network of two ends: this machine's, and a namespace's that has nothing else.

    Attributes:
        name: The namespace's.
        host: This machine's address on it.
        far: The namespace's interface.
    """

    name: str
    host: str
    far: str

    @classmethod
    @contextmanager
    def laid(cls) -> Iterator[Cable]:
        """Lay one, with addresses that nothing else has; skips the test where that is not allowed."""
        number = os.getpid() % 60_000
        near, cable = f"zk0a{number}", cls(f"zk0-{number}", f"10.213.{number // 240}.{number % 240}", f"zk0b{number}")
        other = f"10.214.{number // 240}.{number % 240}"
        try:
            _ip("netns", "add", cable.name)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not to be had here: {error}")
        try:
            _ip("link", "add", near, "type", "veth", "peer", "name", cable.far, "netns", cable.name)
            _ip("addr", "add", f"{cable.host}/32", "peer", other, "dev", near)
            _ip("link", "set", near, "up")
            cable._inside("addr", "add", f"{other}/32", "peer", cable.host, "dev", cable.far)
            cable._inside("link", "set", "lo", "up")
            cable.mend()
            yield cable
        finally:
            _ip("netns", "del", cable.name)

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._inside("link", "set", self.far, "down")

    def mend(self) -> None:
        """Everything passes."""
        self._inside("link", "set", self.far, "up")

    def _inside(self, *words: str) -> None:
        _ip("netns", "exec", self.name, "ip", *words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class NetworkSite:
    """One site: a folder of its own, a trainer and a SuperNode."""

    name: str
    partition: int
    folder: Path
    server: FederationServer
    key: NodeKey
    cable: Cable | None = None
    trainer: Service | None = None
    node: Service | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start what does not run, and wait until the trainer listens."""
        self.launch()
        wait_until(lambda: answers(self.folder, self.partition), f"the trainer of {self.name}", 300)

    def launch(self) -> None:
        """Start what does not run."""
        self.start_node()
        if self.trainer is None or self.trainer.process.poll() is not None:
            words = [sys.executable, "-m", "zk0.network.client", "--project", self.folder]
            words += ["--partition", str(self.partition)]
            self.trainer = self._stack.enter_context(service(words, self.folder / "trainer.log"))

    def start_node(self) -> None:
        """Start the SuperNode if it does not run."""
        if self.node is not None and self.node.process.poll() is None:
            return
        config = f'project="{self.folder}" partition-id={self.partition}'
        within = () if self.cable is None else ("ip", "netns", "exec", self.cable.name)
        words = [
            *within,
            BIN / "flower-supernode",
            "--superlink",
            f"{self.cable.host if self.cable else '127.0.0.1'}:{self.server.gateway.port}",
        ]
        words += ["--root-certificates", self.server.authority, "--auth-supernode-private-key", self.key.path]
        words += ["--node-config", config, "--port", str(free_port())]
        env = {
            "FLWR_HOME": str(self.folder / "flower"),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        self.node = self._stack.enter_context(service(words, self.folder / "node.log", env, self.folder))

    def wait_until_there(self) -> None:
        """Until the SuperLink has heard of it."""
        node_id = self.server.registry.site(self.name).node_id
        wait_until(lambda: node_id in present_nodes(self.server), f"node of {self.name} there")

    def kill(self) -> None:
        """As a power cut does: trainer and node and all of theirs, at once."""
        for part in (self.node, self.trainer):
            if part is not None and part.process.poll() is None:
                signal_family(part.process.pid, signal.SIGKILL)
                part.process.wait()

    def freeze(self) -> None:
        """As a machine that hangs."""
        for part in (self.node, self.trainer):
            if part is not None:
                signal_family(part.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen site go on."""
        for part in (self.trainer, self.node):
            if part is not None and part.process.poll() is None:
                signal_family(part.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End what runs."""
        self.thaw()
        self._stack.close()


def signal_family(pid: int, number: int) -> None:
    """Send a signal to a process and to all that it started."""
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        try:
            one.send_signal(number)
        except psutil.NoSuchProcess:
            continue


@dataclass
class NetworkFederation:
    """A server and its sites."""

    root: Path
    server: FederationServer
    sites: list[NetworkSite]

    def params(self, **changes: dict[str, Any]) -> None:
        """Change sections of the server's params."""
        file = self.root / "params.yaml"
        content = yaml.safe_load(file.read_text())
        for section, values in changes.items():
            content[section] = {**content.get(section, {}), **values}
        file.write_text(yaml.safe_dump(content))

    def begin(self, **settings: Any) -> tuple[int, datetime]:
        """Hand a run over, without waiting for its end."""
        since = datetime.now(UTC)
        prepare(self.server)
        return submit(self.server, **settings), since

    def run(self, **settings: Any) -> list[Event]:
        """A whole run's events."""
        number, since = self.begin(**settings)
        return list(watch(self.server, number, since))

    def failing_run(self, **settings: Any) -> str:
        """Why a run failed."""
        try:
            self.run(**settings)
        except StageError as error:
            return str(error)
        raise AssertionError("the run was to fail")

    def report(self) -> Run:
        """The last run's run.json."""
        return read(self.root, Run)


class RunRows:
    """The rows of a run in progress."""

    def __init__(self, network: NetworkFederation, number: int, since: datetime, first: int = 0) -> None:
        """Of the run with that number, begun then; up to round ``first`` they are passed over."""
        self._network, self._number, self._seen = network, number, first
        self._since = since.isoformat(timespec="milliseconds")  # what was said before is of an earlier run
        self._results = network.root / "results" / "federation"

    def until(self, enough: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The rows since the last call, up to the first with which it is enough."""

        def found() -> list[dict[str, Any]] | None:
            rows = [row for row in read_lines(self._results / "rounds.jsonl") if row["round"] > self._seen]
            end = next((place for place, row in enumerate(rows, 1) if enough(row)), None)
            self._check()
            return rows[:end] if end else None

        rows = wait_until(found, f"a round after {self._seen}", 900)
        self._seen = rows[-1]["round"]
        return list(rows)

    def told(self, what: str, number: int) -> None:
        """Wait until this run has said something of a round; rows may still be those of an earlier one."""

        def found() -> bool:
            self._check()
            events = [one for one in read_lines(self._results / "events.jsonl") if one["time"] >= self._since]
            return any(event["event"] == what and event["round"] == number for event in events)

        wait_until(found, f"{what} of round {number}", 300)

    def _check(self) -> None:
        (run,) = runs_of(self._network.server, self._number)
        assert not run.finished, run.details


def server_app_peak_bytes(network: NetworkFederation) -> int:
    """Most memory that the ServerApp of the run in progress has had."""

    def is_ours(process: psutil.Process) -> bool:
        lines = [" ".join(one.cmdline()) for one in (process, *process.parents())]
        return "flwr-serverapp" in lines[0] and any(str(network.root) in line for line in lines)

    for process in psutil.process_iter():
        try:
            if is_ours(process):
                status = Path(f"/proc/{process.pid}/status").read_text()
                return 1024 * int(status.partition("VmHWM:")[2].split()[0])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    raise AssertionError("no ServerApp runs")


@contextmanager
def network_federation(
    prepared: Path, root: Path, params: dict[str, Any], names: tuple[str, ...], cables: dict[str, Cable]
) -> Iterator[NetworkFederation]:
    """Server and sites up and connected; all of it down at the end.

    Args:
        prepared: Whose two manifests the sites have in turn.
        root: Where everything goes.
        params: Of server and sites.
        names: The sites'.
        cables: Sites that reach the server by another network than loopback.
    """
    project = root / "server"
    project.mkdir()
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    hosts = ["127.0.0.1", *(cable.host for cable in cables.values())]
    places = initialise(project / "security", hosts, "arms")
    server = FederationServer(project)
    sites = []
    for partition, name in enumerate(names):
        folder = lay_out_site(prepared, root / name, params)
        manifests = sorted((folder / "data" / "manifests").iterdir())
        own = {**read_json(manifests[partition % len(manifests)]), "site": name, "partition": partition}
        for file in manifests:
            file.unlink()
        write_json(folder / "data" / "manifests" / f"{name}.json", own)
        key = NodeKey.create(folder / "site-keys", name)
        SiteRegistry(places.registry).admit(name, key.public)
        sites.append(NetworkSite(name, partition, folder, server, key, cables.get(name)))
    try:
        server.start(host="0.0.0.0", port=free_port(), upstream=f"https://127.0.0.1:{free_port()}")
        for site in sites:
            site.launch()
        for site in sites:
            site.start()
        yield NetworkFederation(project, server, sites)
    finally:
        for site in sites:
            site.close()
        server.stop()
        assert not server.services.running()
