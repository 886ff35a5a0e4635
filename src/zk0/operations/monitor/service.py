"""The monitor: looks at a deployment again and again, answers Prometheus, and tells of alerts.

``python -m zk0.operations.monitor.service --root FOLDER``
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from prometheus_client import CollectorRegistry

from zk0.errors import StageError
from zk0.network.config import CONFIG, DeploymentConfig
from zk0.network.server.wanted import wanted_run
from zk0.operations.monitor.alerts import (
    AlertBook,
    Message,
    as_event,
    find_alerts,
    logger,
    payload,
    post,
    tell,
    webhook_address,
)
from zk0.operations.monitor.metrics import SnapshotCollector
from zk0.operations.monitor.snapshot import take
from zk0.services.process import RUN
from zk0.services.telemetry import log_as_json, metrics_served

BOOK = RUN / "monitor" / "alerts.json"  # in a folder of its own: beside the logs, JSON files record processes


class Monitor:
    """Watches one deployment.

    Args:
        root: Project folder.
        config: What is watched, and what is told to whom.

    Raises:
        StageError: The webhook's file is not what it must be.
    """

    def __init__(self, root: Path, config: DeploymentConfig) -> None:
        self.root, self.config = root, config
        self.book = AlertBook(root / BOOK)
        self.webhook = webhook_address(root, config.alerts)
        self.metrics = CollectorRegistry()
        self.metrics.register(SnapshotCollector(lambda: (take(self.root, self.config), self.book.open)))

    def look(self) -> None:
        """Look once: note and tell what began and what is over."""
        snapshot = take(self.root, self.config)
        if snapshot.problem:
            tell("not-seen", logging.WARNING, problem=snapshot.problem)
        for message in self.book.note(find_alerts(snapshot, self.config.alerts)):
            level = logging.WARNING if message.status == "firing" else logging.INFO
            tell(f"alert-{message.status}", level, **asdict(message.alert))
            self._show(message)
        address, name = self.webhook, self.config.federation
        self.book.deliver(lambda message: address is None or post(address, payload(message, name)))
        if self.config.resume and wanted_run(self.root) is not None:
            self._resume()

    def _resume(self) -> None:
        """Take up the run that is wanted, if it was interrupted."""
        # Flower takes much memory, and is not needed where no run was ever handed over.
        from zk0.network.server.resume import take_up  # noqa: PLC0415 - as said above
        from zk0.network.server.services import FederationServer  # noqa: PLC0415 - as said above

        with contextlib.suppress(StageError):  # the SuperLink is away: an alert of its own, and it is asked again
            if (number := take_up(FederationServer(self.root))) is not None:
                tell("run-taken-up", logging.WARNING, run=number)

    def _show(self, message: Message) -> None:
        """Tell Prefect. Once and not again: it keeps what it gets, and may well be what is down."""
        if self.config.alerts.events and self.config.prefect_url:
            post(f"{self.config.prefect_url}/api/events", [as_event(message, self.config.federation)])

    def run(self) -> None:
        """Look every so often until SIGTERM or SIGINT.

        Raises:
            StageError: The port for Prometheus is taken.
        """
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        port = self.config.ports.monitor
        taken = "ports.monitor {port} is taken ({why}); choose another in deployment.yaml"
        with metrics_served(self.metrics, port, taken):
            tell("watching", port=port, every_s=self.config.alerts.every_s)
            self._look_on()
            while not ended.wait(self.config.alerts.every_s):
                self._look_on()
        tell("stopped")

    def _look_on(self) -> None:
        """Look; what goes wrong is told, and the monitor goes on: it is there for when things go wrong."""
        try:
            self.look()
        except (OSError, ValueError, KeyError, StageError) as error:
            tell("look-failed", logging.ERROR, problem=f"{type(error).__name__}: {error}")


def main(arguments: list[str] | None = None) -> None:
    """Run the monitor in the foreground, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m zk0.operations.monitor.service", description=main.__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="project folder, with deployment.yaml")
    root = parser.parse_args(arguments).root.resolve()
    log_as_json(logger)
    try:
        Monitor(root, DeploymentConfig.read(root / CONFIG)).run()
    except StageError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
