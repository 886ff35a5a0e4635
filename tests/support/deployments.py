"""A deployment of its own, brought up and used by the commands that people type."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from network_services import free_port
from tests_support import Project
from webhook_receiver import Receiver

from zk0.network.config import DeploymentConfig


@dataclass(frozen=True)
class Deployed:
    """A deployment that runs.

    Attributes:
        project: Its folder.
        webhook: Where its alerts arrive.
        output: What `zk0 deploy` printed.
    """

    project: Project
    webhook: Receiver
    output: str

    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def config(self) -> DeploymentConfig:
        return DeploymentConfig.read(self.root / "deployment.yaml")

    def type(self, line: str) -> str:
        """Run a line that must succeed, and give what it printed."""
        done = typed_in(self.project, line)
        assert done.returncode == 0, f"{line}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What `zk0 status --json` tells."""
        return dict(json.loads(self.type("zk0 status --json")))


def typed_in(project: Project, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a documented line, whatever becomes of it; `zk0` and `prefect` are those of this interpreter."""
    program, *words = shlex.split(line, comments=True)
    return project.attempt(sys.executable, "-m", program, *words, COLUMNS="200", **env)


def use_free_ports(path: Path, **changes: Any) -> None:
    """Edit a deployment.yaml: ports that nothing uses, on this machine only; and further settings, by section."""
    content = yaml.safe_load(path.read_text())
    content["listen"] = "127.0.0.1"
    content["ports"] = {name: free_port() for name in content["ports"]}
    for name in ("mlflow_url", "prefect_url"):
        content[name] = f"http://127.0.0.1:{free_port()}"
    for section, settings in changes.items():
        content[section] = {**content[section], **settings} if isinstance(settings, dict) else settings
    path.write_text(yaml.safe_dump(content, sort_keys=False))
