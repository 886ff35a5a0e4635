"""One deployment for all tests of this folder, brought up by the documented commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deployments import Deployed, typed_in, use_free_ports
from docs_commands import documented
from tests_support import make_project
from webhook_receiver import receiving


@pytest.fixture(scope="package")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """MLflow, Prefect, SuperLink, gateway and monitor, in a project of their own."""
    base = tmp_path_factory.mktemp("deployed")
    project = make_project(base / "project", base / "prefect")
    with receiving() as webhook:
        init = documented("operate.md", "zk0 deploy init").replace("robots.example.org", "localhost")
        assert typed_in(project, init).returncode == 0
        alerts = {"webhook": webhook.address, "every_s": 0.3, "disk_free_bytes": 0}
        use_free_ports(project.root / "deployment.yaml", alerts=alerts)
        try:
            done = typed_in(project, "zk0 deploy")
            assert done.returncode == 0, done.stdout + done.stderr
            yield Deployed(project, webhook, done.stdout)
        finally:
            typed_in(project, "zk0 stop")
