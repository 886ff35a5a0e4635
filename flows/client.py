"""Client set-up: a robot owner takes part in a federation over a network, in the eight documented steps."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from tasks import client as steps_of
from tasks.context import leaves_context
from zk0.network.client.membership import Joining, Membership, find_membership, open_membership, removed_if_refused
from zk0.words import in_markdown
from zk0.workspaces import Request


def tell_how_to_go_on(flow: Any, flow_run: Any, state: Any) -> None:
    """When it fails or crashes: say what is kept and which command goes on."""
    text = (
        f"The client's set-up ended as {state.name}: {in_markdown(str(state.message))}\n\n"
        "What was refused before the connection left nothing. Once connected, a site takes part in every run whether "
        "this flow watches or not: `zk0 client status` shows how, `zk0 client start` starts it again, and this "
        "deployment with the parameter `name` alone watches it again."
    )
    create_markdown_artifact(key="failure", markdown=text, description="What happened and how to go on")


@flow(name="client", on_failure=[tell_how_to_go_on], on_crashed=[tell_how_to_go_on])
def client(
    invitation: str | None = None,
    data: str | None = None,
    name: str | None = None,
    rounds: int = 1,
    wait_s: float = 3600.0,
    keys: str = "site-keys",
    authority: str | None = None,
    base: str | None = None,
    device: Literal["cpu", "cuda", "mps", "auto"] | None = None,
    threads: int | None = None,
    fps: int | None = None,
    cameras: dict[str, str | None] | None = None,
    convention: Literal["degrees", "normalised", "so100-old"] | None = None,
    calibration: str | None = None,
    leave_out: list[int] | None = None,
    demands: dict[str, float] | None = None,
    priority: Literal["High", "Medium", "Low"] = "Medium",
) -> Any:
    """Join a federation, or watch a membership that is there, until it has taken part. See docs/join.md.

    Args:
        invitation: The operator's file; none to go on with ``name``.
        data: ``local:PATH``, ``hub:OWNER/NAME@REVISION`` or ``sim:TASK``.
        name: The membership's; the site's own by default.
        rounds: It completes when the site has trained in so many, and judged what came of them.
        wait_s: How long to wait for those; the site goes on afterwards, too.
        keys: Folder of the site's key pair.
        authority: The authority's fingerprint, as the operator told it by another way.
        base: This machine's copy of the starting policy.
        device: ``cuda`` where there is one, else ``cpu``.
        threads: CPU threads.
        fps: Frames a second; the data's own by default.
        cameras: Camera of the data to its name for the policy.
        convention: How the joints' values are written.
        calibration: LeRobot's calibration file, for normalised joints.
        leave_out: Episodes that neither train nor judge.
        demands: What the owner demands of privacy: ``clip_norm``, ``noise_multiplier``, ``target_epsilon``.
        priority: For the task context.
    """
    root, since = Path.cwd(), datetime.now(UTC).isoformat(timespec="milliseconds")
    if invitation is None:
        membership: Membership = find_membership(root, name)
    else:
        request = Request(
            data=data,
            base=base,
            device=device,
            fps=fps,
            cameras=cameras or {},
            convention=convention,
            calibration=calibration,
            leave_out=tuple(leave_out or ()),
        )
        joining = Joining(Path(invitation), request, Path(keys), name, authority, threads, demands or {})
        membership = open_membership(root, joining)
    mode = "deployed" if runtime.deployment.id else "manual"
    with removed_if_refused(membership), leaves_context(membership.folder, "client", mode, priority, keep=root) as made:
        for step, stage, call in (
            ("dependency installation", "validate", steps_of.install_dependencies),
            ("Flower client initialization", "Flower client initialization", steps_of.initialise_client),
            ("dataset partitioning", "prepare", steps_of.partition_dataset),
            ("model configuration", "model configuration", steps_of.configure_model),
            ("server connection", "server connection", steps_of.connect),
        ):
            made.run(step, stage, lambda call=call: call(membership, return_state=True))  # type: ignore[misc]
        for step, wait in (
            ("training loop", steps_of.train_in_rounds),
            ("parameter synchronization", steps_of.synchronise),
        ):
            made.run(step, step, lambda wait=wait: wait(membership, rounds, since, wait_s, return_state=True))  # type: ignore[misc]
        watched = "logging and monitoring"
        made.run(watched, watched, lambda: steps_of.monitor(membership, since, return_state=True))
    return Completed(message=f"site '{membership.invitation.site}' took part in {rounds} rounds, and goes on")


if __name__ == "__main__":
    client()
