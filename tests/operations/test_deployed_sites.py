"""A deployment with a site: health checks send it a message, and the monitor sees it come and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployments import Deployed
from network_federation import NetworkSite
from network_services import wait_until
from site_trainers import lay_out_site

from zk0.files import read_json
from zk0.network.security.keys import NodeKey
from zk0.network.server.runs import tables
from zk0.network.server.services import FederationServer


@pytest.fixture(scope="module")
def site(
    deployed: Deployed, prepared: Path, params_content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NetworkSite]:
    """One that is admitted, and runs."""
    folder = lay_out_site(prepared, tmp_path_factory.mktemp("sites") / "cubes-0", params_content)
    key = NodeKey.create(folder / "site-keys", "cubes-0")
    server = FederationServer(deployed.root)
    deployed.type(f"zk0 site admit cubes-0 {key.public_path} --server {server.gateway_url.removeprefix('https://')}")
    server.sync()
    made = NetworkSite("cubes-0", 0, folder, server, key)
    try:
        made.start()
        made.wait_until_there()
        yield made
    finally:
        made.close()
        deployed.type("zk0 site revoke cubes-0 --why over")


def health(deployed: Deployed) -> dict[str, str]:
    """The check of the site, after another deployment."""
    deployed.type("zk0 deploy")
    step = read_json(deployed.root / "results/deployment.json")["health checks"]
    (check,) = [check for check in step["facts"]["checks"] if check["name"] == "site cubes-0"]
    return {"told": step["told"][-1], "found": check["found"], "passed": check["passed"]}


def test_a_site_is_sent_a_message_and_answers(deployed: Deployed, site: NetworkSite) -> None:
    found = health(deployed)

    assert found["passed"] and found["found"].startswith("answered a message in ")
    assert found["told"] == "every site was sent a message, and is judged by its reply"
    assert tables(site.server)[2].row_count == 0  # it is no federated run


def test_a_site_whose_trainer_is_away_is_found_though_its_node_is_there(deployed: Deployed, site: NetworkSite) -> None:
    assert site.trainer is not None
    site.trainer.stop()

    found = health(deployed)

    assert not found["passed"] and "the site's trainer does not run" in found["found"]
    (shown,) = deployed.status()["sites"]
    assert shown["there"] and shown["bytes_up"] > 0


def test_a_site_that_goes_away_is_alerted_and_so_is_its_return(deployed: Deployed, site: NetworkSite) -> None:
    content = yaml.safe_load((deployed.root / "deployment.yaml").read_text())
    content["alerts"]["site_away_s"] = 8.0
    (deployed.root / "deployment.yaml").write_text(yaml.safe_dump(content))
    deployed.type("zk0 restart monitor")

    site.kill()
    wait_until(lambda: deployed.webhook.of("site-away"), "an alert that the site is away")
    site.start_node()
    wait_until(lambda: len(deployed.webhook.of("site-away")) == 2, "the alert's end")

    assert [message["status"] for message in deployed.webhook.of("site-away")] == ["firing", "resolved"]
    assert deployed.webhook.of("site-away")[0]["subject"] == "site cubes-0"
