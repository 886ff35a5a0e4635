"""The seven steps of deployment as tasks; what Prefect itself can watch is set up here, too."""

from __future__ import annotations

import json
from collections.abc import Callable

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.automations import Automation, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.cache_policies import NO_CACHE
from prefect.events.actions import CallWebhook
from prefect.logging import get_run_logger
from prefect.states import State

from tasks.steps import StageRun, checks_markdown, recorded
from zk0.checks import Outcome
from zk0.operations.deploy import run_step
from zk0.operations.monitor.alerts import webhook_address
from zk0.operations.record import Deployment

AUTOMATION = "zk0: a flow run failed"
BLOCK = "zk0-alerts"
_ENDINGS = ("Failed", "Crashed", "TimedOut")
# Its state's message stays with Prefect, since it may hold anything.
_PAYLOAD = {
    "source": "zk0",
    "status": "firing",
    "rule": "failed-flow",
    "severity": "warning",
    "subject": "flow run {{ flow_run.name }}",
    "summary": "flow run {{ flow_run.name }} ended as {{ flow_run.state.name }}",
    "text": "zk0: flow run {{ flow_run.name }} ended as {{ flow_run.state.name }}",
}


def _run(deployment: Deployment, step: str, more: Callable[[Outcome], None] = lambda outcome: None) -> State[StageRun]:
    return recorded(step, lambda: run_step(deployment, step), more)


@task(name="environment validation", cache_policy=NO_CACHE)
def validate_environment(deployment: Deployment) -> State[StageRun]:
    """Check this machine."""
    return _run(deployment, "environment validation")


@task(name="configuration review", cache_policy=NO_CACHE)
def review_configuration(deployment: Deployment) -> State[StageRun]:
    """Name every risky setting, here and as a table."""

    def show(outcome: Outcome) -> None:
        create_table_artifact(
            key="risks", table=outcome.facts["risks"], description="Risky settings, the gravest first"
        )

    return _run(deployment, "configuration review", show)


@task(name="security setup", cache_policy=NO_CACHE)
def set_up_security(deployment: Deployment) -> State[StageRun]:
    """Authority, certificates, token, list of sites."""
    return _run(deployment, "security setup")


@task(name="resource allocation", cache_policy=NO_CACHE)
def allocate_resources(deployment: Deployment) -> State[StageRun]:
    """Memory, disk and GPU: what is needed, what there is."""
    return _run(deployment, "resource allocation")


@task(name="service startup", cache_policy=NO_CACHE)
def start_services(deployment: Deployment) -> State[StageRun]:
    """Start what does not run."""
    return _run(deployment, "service startup")


@task(name="monitoring setup", cache_policy=NO_CACHE)
def set_up_monitoring(deployment: Deployment) -> State[StageRun]:
    """The monitor, and an automation that tells the same webhook of flow runs that fail."""

    def watch_flows(outcome: Outcome) -> None:
        address = webhook_address(deployment.root, deployment.config.alerts)
        if address is None:
            get_run_logger().info("no webhook: automations of your own can act on the events zk0.alert.*")
        else:
            tell_of_failed_flows(address)

    return _run(deployment, "monitoring setup", watch_flows)


@task(name="health checks", cache_policy=NO_CACHE)
def check_health(deployment: Deployment) -> State[StageRun]:
    """Services, certificates, disk and sites, here and as a table."""

    def show(outcome: Outcome) -> None:
        table = checks_markdown(outcome.facts["checks"])
        create_markdown_artifact(key="health", markdown=table, description="Health of the deployment")

    return _run(deployment, "health checks", show)


def tell_of_failed_flows(address: str) -> None:
    """Have Prefect's server call a webhook when a flow run fails; a second time changes nothing but the address."""
    block = Webhook(url=address)
    identity = block.save(BLOCK, overwrite=True)
    try:
        Automation.read(name=AUTOMATION)  # type: ignore[unused-coroutine]
    except ValueError:
        made = Automation(
            name=AUTOMATION,
            description="Made by the flow deploy. The monitor tells of everything else.",
            trigger=EventTrigger(
                expect={f"prefect.flow-run.{ending}" for ending in _ENDINGS},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[CallWebhook(block_document_id=identity, payload=json.dumps(_PAYLOAD))],
        )
        made.create()  # type: ignore[unused-coroutine]
