"""deploy: the seven steps on the server's machine. All may be run again; what is well is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from zk0.checks import Check
from zk0.environment import check_environment
from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.network.config import CONFIG, DeploymentConfig, Group
from zk0.network.security.files import SECURITY
from zk0.network.security.files import set_up_security as set_up
from zk0.network.server.services import FederationServer
from zk0.operations.health import health_checks, round_trips
from zk0.operations.monitor.alerts import try_webhook, webhook_address
from zk0.operations.monitor.snapshot import Snapshot, take
from zk0.operations.resources import allocate, gpu_share
from zk0.operations.review import review
from zk0.operations.start import lacking_groups, start_groups, stop_services
from zk0.params import PARAMS_FILE, Params, load_params
from zk0.pipeline import validate
from zk0.records.paths import DEPLOYMENT, ENVIRONMENT
from zk0.steps import Outcome, Step, run_steps, step


class Ended(TypedDict):
    """How a step ended, as the record has it; see :class:`Outcome`."""

    ended: str
    changed: bool
    told: list[str]
    warnings: list[str]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Deployment:
    """What is to be deployed.

    Attributes:
        root: Project folder.
        params: Its params.
        config: Its deployment.yaml.
    """

    root: Path
    params: Params
    config: DeploymentConfig

    @classmethod
    def open(cls, root: Path) -> Deployment:
        """Read both files.

        Raises:
            ParamsError: params.yaml is missing or wrong.
            StageError: deployment.yaml is.
        """
        root = root.resolve()
        return cls(root, load_params(root / PARAMS_FILE), DeploymentConfig.read(root / CONFIG))


def run(deployment: Deployment) -> None:
    """Run all steps, and say of each what it came to.

    Raises:
        StageError: A step refused.
    """
    run_steps(STEPS, lambda one: run_step(deployment, one))


def run_step(deployment: Deployment, one: Step[[Deployment], Outcome]) -> Outcome:
    """Run one step and write down how it ended.

    Raises:
        StageError: It refused.
    """
    outcome = one(deployment)
    remember(deployment.root, one, outcome)
    return outcome


def remember(root: Path, one: Step[[Deployment], Outcome], outcome: Outcome) -> None:
    """Write down how a step ended; a first step begins a new record."""
    record = {} if one is STEPS[0] else read_record(root)
    record[one.name] = {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed": outcome.changed,
        "told": list(outcome.told),
        "warnings": list(outcome.warnings),
        "facts": dict(outcome.facts),
    }
    write_json(root / DEPLOYMENT, record)


def read_record(root: Path) -> dict[str, Ended]:
    """The steps of the last deployment so far; empty where there is none."""
    try:
        return dict(read_json(root / DEPLOYMENT))
    except FileNotFoundError:
        return {}


@step("environment validation")
def validate_environment(deployment: Deployment) -> Outcome:
    """Check this machine: Python, packages, device, threads, memory, disk, ports."""
    report = check_environment(deployment.params, deployment.root, data=False)
    write_json(deployment.root / ENVIRONMENT, asdict(report))
    validate.show_checks(report.checks)
    notes = [c for c in report.checks if not c.passed]
    return Outcome(
        changed=False,
        told=(f"{len(report.checks)} checks, none failed",),
        warnings=tuple(f"{c.name}: {c.found} (expected {c.expected})" for c in notes),
    )


@step("configuration review")
def review_configuration(deployment: Deployment) -> Outcome:
    """Name every risky setting, and why it is."""
    risks = review(deployment.root, deployment.params, deployment.config)
    levels = {"warning": "high", "note": "note"}
    facts = [{"setting": r.name, "why": r.found, "advice": r.advice, "level": levels[r.severity]} for r in risks]
    high = sum(fact["level"] == "high" for fact in facts)
    return Outcome(
        changed=False,
        told=(f"{len(risks)} risky settings, {high} of them high",),
        warnings=tuple(f"[{r['level']}] {r['setting']}: {r['why']}. Better: {r['advice']}" for r in facts),
        facts={"risks": facts},
    )


@step("security setup")
def set_up_security(deployment: Deployment) -> Outcome:
    """Make authority, certificates, token and list of sites, or check those that are there."""
    if "federation" not in deployment.config.services:
        return Outcome(changed=False, told=("no federation is started here",))
    config = deployment.config
    found = set_up(deployment.root / SECURITY, config.hosts, config.federation)
    told = f"the authority's fingerprint, for owners to compare: {found.facts['fingerprint']}"
    return replace(found, told=(*found.told, told))


@step("resource allocation")
def allocate_resources(deployment: Deployment) -> Outcome:
    """Hold what is needed of memory, disk and GPU against what there is."""
    root, config = deployment.root, deployment.config
    sites = sum(state.site.admitted for state in take(root, config).sites)
    starting = lacking_groups(root, config.services)
    found = allocate(root, deployment.params, config.resources, starting, sites)
    return Outcome(
        changed=False,
        told=tuple(need.told() for need in found),
        facts={"needs": [need.as_dict() for need in found], "environment": gpu_share(config.resources)},
    )


@step("service startup")
def start_services(deployment: Deployment) -> Outcome:
    """Start MLflow, Prefect, SuperLink and gateway, those that do not run, side by side."""
    return _start(deployment, tuple(group for group in deployment.config.services if group != "monitor"))


@step("monitoring setup")
def set_up_monitoring(deployment: Deployment) -> Outcome:
    """Start the monitor, and try the way of an alert.

    Raises:
        StageError: The monitor does not come up; the services that this deployment started are stopped again.
    """
    config = deployment.config
    if "monitor" not in config.services:
        return Outcome(changed=False, told=("no monitor is started here",))
    try:
        address = webhook_address(deployment.root, config.alerts)
        outcome = _start(deployment, ("monitor",))
    except StageError:
        stop_services(deployment.root, _facts(deployment, start_services).get("started", []))
        raise
    told = (*outcome.told, f"metrics for Prometheus: http://127.0.0.1:{config.ports.monitor}/metrics")
    if "federation" in config.services:
        told = (*told, f"the gateway's own: http://127.0.0.1:{config.ports.gateway_metrics}/metrics")
    warnings: tuple[str, ...] = ()
    if address is not None and outcome.changed:
        arrived = try_webhook(address, config.federation)
        told = (*told, "a test alert has arrived at the webhook") if arrived else told
        warnings = () if arrived else ("a test alert did not arrive at the webhook: look at alerts.webhook",)
    return Outcome(outcome.changed, told, warnings, outcome.facts)


@step("health checks")
def check_health(deployment: Deployment) -> Outcome:
    """Every service answers, certificates last, there is disk, and every site is there.

    Raises:
        StageError: A check failed; lists each with what to do. What runs goes on running.
    """
    snapshot = take(deployment.root, deployment.config)
    trips, how = _messages(deployment, snapshot)
    checks = health_checks(deployment.root, deployment.config, snapshot, trips)
    validate.show_checks(checks)
    return Outcome(
        changed=False,
        told=(f"{len(checks)} checks, none failed", *how),
        warnings=tuple(f"{c.name}: {c.found}; {c.advice}" for c in checks if not c.passed),
        facts={"checks": [asdict(check) for check in checks]},
    )


def _messages(deployment: Deployment, snapshot: Snapshot) -> tuple[dict[str, Check] | None, tuple[str, ...]]:
    """What became of a message to each site, where one can be sent; and how sites are judged, in words."""
    if "federation" not in deployment.config.services or not any(state.site.admitted for state in snapshot.sites):
        return None, ()
    try:
        trips = round_trips(FederationServer(deployment.root))
    except StageError as error:
        return None, (f"no message was sent to sites ({error}); they are judged by their last signed request",)
    return trips, ("every site was sent a message, and is judged by its reply",)


def _start(deployment: Deployment, groups: tuple[Group, ...]) -> Outcome:
    allocated = _facts(deployment, allocate_resources).get("environment", {})
    started = start_groups(deployment.root, deployment.config, groups, allocated)
    told = f"started: {', '.join(started)}" if started else "all of them ran before"
    return Outcome(bool(started), (told,), facts={"started": started})


def _facts(deployment: Deployment, one: Step[[Deployment], Outcome]) -> Mapping[str, Any]:
    """What an earlier step of this deployment left."""
    ended = read_record(deployment.root).get(one.name)
    return ended.get("facts", {}) if ended else {}


STEPS: tuple[Step[[Deployment], Outcome], ...] = (
    validate_environment,
    review_configuration,
    set_up_security,
    allocate_resources,
    start_services,
    set_up_monitoring,
    check_health,
)
