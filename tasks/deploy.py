"""How the seven steps of deployment are run and shown; what Prefect itself can watch is set up here, too."""

from __future__ import annotations

import json

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.automations import Automation, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook
from prefect.logging import get_run_logger

from tasks.steps import Steps, checks_markdown
from zk0.context import StageOutcome
from zk0.operations.deploy import Deployment, check_health, review_configuration, run_step, set_up_monitoring
from zk0.operations.monitor.alerts import webhook_address
from zk0.steps import Outcome

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


def steps_of(deployment: Deployment, outcomes: list[StageOutcome]) -> Steps:
    """The steps of a deployment; risks and health are shown as tables, and Prefect is told to watch flow runs."""

    def show_risks(outcome: Outcome) -> None:
        create_table_artifact(
            key="risks", table=outcome.facts["risks"], description="Risky settings, the gravest first"
        )

    def watch_flows(_: Outcome) -> None:
        address = webhook_address(deployment.root, deployment.config.alerts)
        if address is None:
            get_run_logger().info("no webhook: automations of your own can act on the events zk0.alert.*")
        else:
            tell_of_failed_flows(address)

    def show_health(outcome: Outcome) -> None:
        table = checks_markdown(outcome.facts["checks"])
        create_markdown_artifact(key="health", markdown=table, description="Health of the deployment")

    show = {review_configuration: show_risks, set_up_monitoring: watch_flows, check_health: show_health}
    return Steps(outcomes, lambda step: run_step(deployment, step), show)


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
        made.create()
