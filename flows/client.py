"""Client set-up: a robot owner takes part in a federation over a network, in the eight documented steps."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed

from tasks.client import steps_of
from tasks.steps import WayOn, by_hand, leaves_context, run_name
from zk0.network.client import steps
from zk0.network.client.membership import Joining, find_membership, open_membership
from zk0.workspaces.defaults import Request

_way = WayOn(
    "The client's set-up",
    "What was refused before the connection left nothing. Once connected, a site takes part in every run whether "
    "this flow watches or not: `zk0 client status` shows how, `zk0 client start` starts it again, and this "
    "deployment with the parameter `name` alone watches it again.",
)


@flow(name="client", flow_run_name=run_name, on_failure=[_way.show], on_crashed=[_way.show])
@_way.after_a_stop
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
        membership = find_membership(root, name)
    else:
        request = Request(data, None, base, device, fps, cameras, convention, calibration, leave_out)
        joining = Joining(Path(invitation), request, Path(keys), name, authority, threads, demands or {})
        membership = open_membership(root, joining)
    mine = leaves_context(membership.folder, "client", priority, keep=root, deployed="deployed")
    with membership.removed_if_refused(), mine as outcomes:
        steps_of(steps.Awaited(membership, rounds, since, wait_s), outcomes).run(
            steps.install_dependencies,
            steps.initialise_client,
            steps.partition_dataset,
            steps.configure_model,
            steps.connect,
            steps.train_in_rounds,
            steps.synchronise,
            steps.monitor,
        )
    return Completed(message=f"site '{membership.invitation.site}' took part in {rounds} rounds, and goes on")


if __name__ == "__main__":
    by_hand(client)
