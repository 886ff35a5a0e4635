"""What a run tells of itself, as progress, as metrics, and as alerts: from a real run whose second round fails."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from federated_sites import BAD_UPDATES, BASE, LIMIT, copy_project, spoilt
from flwr.app import RecordDict
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from zk0.federation import protocol
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import run_federation
from zk0.federation.server import FederationError
from zk0.network.config import Alerts, DeploymentConfig
from zk0.network.security.authority import Expiry
from zk0.network.security.sites import Site
from zk0.operations.monitor.alerts import RULES, find_alerts
from zk0.operations.monitor.metrics import SnapshotCollector
from zk0.operations.monitor.progress import Progress, kind_of, read_progress
from zk0.operations.monitor.snapshot import ServiceState, SiteState, Snapshot, take
from zk0.operations.status import overview, render
from zk0.params import Params, with_changes
from zk0.services.process import Services, own_environment

_KEY = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5"
    "N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="
)
NOW = 1_800_000_000.0
DOCS = Path(__file__).parents[2] / "docs/monitoring"


@pytest.fixture(scope="module")
def failed(prepared: Path, small_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the site cubes-1 sends what is not finite in round 2, and all sites are needed."""
    root = copy_project(prepared, tmp_path_factory.mktemp("failed") / "project")
    changes = {"training.local_steps": 1, "training.batch": 2, "federation.min_replies": 1.0}
    seen: list[int] = []

    def spoil(content: RecordDict) -> None:
        seen.append(1)
        if len(seen) == 2:
            BAD_UPDATES["nan"][0](content)

    grid = InProcessGrid(spoilt(protocol.TRAIN, spoil), root, 2, LIMIT)
    with pytest.raises(FederationError, match="round 2"):
        run_federation(grid, root, with_changes(small_params, changes), BASE)
    return root


@pytest.fixture
def progress(failed: Path) -> Progress:
    found = read_progress(failed)
    assert found is not None
    return found


def snapshot(**changes: Any) -> Snapshot:
    """All well, unless something is changed."""
    well = Snapshot(NOW, (), (), NOW - 10_000, None, (), 10**12)
    return replace(well, **changes)


def rules(seen: Snapshot, **limits: Any) -> list[str]:
    return [alert.rule for alert in find_alerts(seen, Alerts(**limits))]


def test_a_failed_run_is_read_as_it_was(progress: Progress, failed: Path) -> None:
    (run,) = [path.name for path in (failed / "state").iterdir() if len(path.name) == 16]

    assert (progress.run, progress.round, progress.failed, progress.active) == (run, 1, 2, False)
    assert [(one.round, one.site, one.kind) for one in progress.left_out] == [(2, "cubes-1", "not-finite")]
    assert progress.failures == 1 and progress.round_ended > 0
    assert set(progress.bytes) == {"cubes-0", "cubes-1"} and all(ways["up"] > 0 for ways in progress.bytes.values())


def test_without_a_run_there_is_no_progress(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None


def test_a_run_that_was_killed_counts_as_active(failed: Path, tmp_path: Path) -> None:
    lines = (failed / "results/federation/events.jsonl").read_text().splitlines()
    folder = tmp_path / "results/federation"
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("\n".join(lines[:-3]) + '\n{"time": "2026-')  # cut off while it was written

    found = read_progress(tmp_path)

    assert found is not None and found.active and found.failed is None and found.run == "" and found.rows == ()


@pytest.mark.parametrize("fault", ["nan", "shape", "crash", "nan-loss"])
def test_each_kind_of_refusal_is_one_word(fault: str) -> None:
    """Words of a site's own, as its file names, are in none."""
    words = {"nan": "not-finite", "shape": "refused", "crash": "site-failed", "nan-loss": "not-finite"}

    refused = "" if fault == "crash" else "its update is refused: "
    assert kind_of(f"a is left out: {refused}{BAD_UPDATES[fault][1]}") == words[fault]
    assert kind_of("a is left out: no reply within 600.0 s") == "no-reply" and kind_of("something else") == "other"


def test_prometheus_sees_rounds_losses_bytes_and_failures(failed: Path, progress: Progress) -> None:
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(lambda: (take(failed, DeploymentConfig(services=())), ())))
    run, row = progress.run, progress.rows[-1]

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("zk0_round", run=run) == 1 and value("zk0_run_active", run=run) == 0
    assert value("zk0_held_out_loss", run=run) == row.held_out_loss
    assert value("zk0_site_train_loss", run=run, site="cubes-0") == row.sites["cubes-0"].train_loss
    assert value("zk0_bytes_total", run=run, site="cubes-1", direction="up") == row.sites["cubes-1"].bytes_up
    assert value("zk0_failed_rounds_total", run=run) == 1
    assert value("zk0_left_out_total", run=run, site="cubes-1", reason="not-finite") == 1
    assert {value("zk0_alerts", rule=rule) for rule in RULES} == {0}
    assert b"nan" not in generate_latest(registry).lower()


def exported(root: Path) -> set[str]:
    """Names of all that a monitor tells Prometheus of a run."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(lambda: (take(root, DeploymentConfig(services=())), ())))
    text = generate_latest(registry).decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["prometheus-rules.yml", "grafana-dashboard.json"])
def test_the_files_for_prometheus_and_grafana_name_what_is_exported(failed: Path, name: str) -> None:
    """A metric that is named otherwise would be an alert that never fires, and a panel that stays empty."""
    named = set(re.findall(r"zk0_\w+", (DOCS / name).read_text()))

    assert named and named <= exported(failed)
    assert name != "grafana-dashboard.json" or named == exported(failed)


def test_the_rules_for_prometheus_are_the_monitors_with_the_same_thresholds() -> None:
    (group,) = yaml.safe_load((DOCS / "prometheus-rules.yml").read_text())["groups"]
    found = {rule["alert"]: rule for rule in group["rules"]}
    limits = Alerts()

    assert set(found) == {*RULES, "monitor-away"}
    assert found["no-round"]["expr"].endswith(f"> {limits.round_s:.0f}")
    assert found["site-away"]["expr"].endswith(f"> {limits.site_away_s:.0f}")
    assert found["certificate"]["expr"].endswith(f"< {limits.certificate_days} * 86400")
    assert found["disk"]["expr"].endswith(f"< {limits.disk_free_bytes}")


def test_the_dashboard_has_a_place_for_every_panel() -> None:
    board = json.loads((DOCS / "grafana-dashboard.json").read_text())
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]

    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_all_well_alerts_nobody() -> None:
    assert rules(snapshot()) == []


def test_a_failed_round_names_sites_and_kinds_alone(progress: Progress) -> None:
    (alert,) = find_alerts(snapshot(progress=progress), Alerts())

    assert (alert.rule, alert.severity) == ("failed-round", "critical")
    assert alert.summary == "round 2 could not be completed; left out: cubes-1 (not-finite). Complete rounds are saved"


def test_a_run_that_stands_still_is_alerted(progress: Progress) -> None:
    on = replace(progress, active=True, failed=None, round_ended=NOW - 100)

    assert rules(snapshot(progress=on), round_s=99) == ["no-round"]
    assert rules(snapshot(progress=on), round_s=101) == []
    assert rules(snapshot(progress=replace(on, active=False)), round_s=99) == []


@pytest.fixture
def site() -> Iterator[Site]:
    from zk0.network.security.keys import PublicKey

    key = PublicKey.parse(_KEY, "test")
    yield Site(name="kitchen", partition=0, public_key=key.line, fingerprint=key.fingerprint, since=datetime.now(UTC))


def test_a_silent_site_is_alerted_unless_it_was_shut_out(site: Site) -> None:
    seen = SiteState(site, NOW - 400)

    assert rules(snapshot(sites=(seen,))) == ["site-away"]
    assert rules(snapshot(sites=(seen,)), site_away_s=500) == []
    assert rules(snapshot(sites=(SiteState(site, None),))) == ["site-away"]
    assert rules(snapshot(sites=(replace(seen, site=site.model_copy(update={"state": "revoked"})),))) == []


def test_a_gateway_that_began_just_now_has_not_waited_yet(site: Site) -> None:
    assert rules(snapshot(sites=(SiteState(site, None),), gateway_since=NOW - 100)) == []
    assert rules(snapshot(sites=(SiteState(site, None),), gateway_since=None)) == []


def test_what_is_given_up_is_alerted() -> None:
    """It stays down until a person has looked at it."""
    services = (ServiceState("gateway", True, None, given_up=True), ServiceState("mlflow", True, NOW - 5))

    found = find_alerts(snapshot(services=services, run_given_up=True), Alerts())

    assert {(alert.rule, alert.subject, alert.severity) for alert in found} == {
        ("service-down", "service gateway", "critical"),
        ("service-given-up", "service gateway", "critical"),
        ("run-given-up", "run", "critical"),
    }
    assert "`zk0 restart gateway`" in found[1].summary


def test_a_death_between_two_looks_is_alerted_and_over_when_the_service_stayed_up() -> None:
    def found(ago: float, every_s: float) -> list[str]:
        back = ServiceState("gateway", True, NOW - ago, died=NOW - ago)
        return [alert.summary for alert in find_alerts(snapshot(services=(back,)), Alerts(every_s=every_s))]

    assert found(10, 0.3) == found(50, 30) == ["gateway died, and was started again"]
    assert found(20, 0.3) == found(70, 30) == []


def test_certificates_disk_and_services_are_alerted() -> None:
    soon = Expiry("gateway", (), datetime.now(UTC) + timedelta(days=5), 5, "")
    down = tuple(
        ServiceState(name, name != "prefect-worker", None)
        for name in ("mlflow", "gateway", "prefect-worker", "monitor")
    )

    found = find_alerts(snapshot(certificates=(soon,), disk_free_bytes=1, services=down), Alerts())

    assert [(alert.rule, alert.severity) for alert in found] == [
        ("certificate", "warning"),
        ("disk", "critical"),
        ("service-down", "warning"),
        ("service-down", "critical"),
    ]
    assert json.dumps([asdict(alert) for alert in found])


def test_status_without_a_deployment_says_what_runs(tmp_path: Path) -> None:
    def shown() -> str:
        Console(width=80, file=(terminal := io.StringIO())).print(*render(overview(tmp_path)), sep="\n")
        return terminal.getvalue()

    assert "no deployment here: `zk0 deploy init" in shown() and "services: none run" in shown()
    services = Services(tmp_path / ".run")
    services.launch("clock", ["sleep", "60"], own_environment())
    try:
        assert overview(tmp_path)["services"][0]["name"] == "clock" and overview(tmp_path)["alerts"] == []
    finally:
        services.stop(["clock"])
