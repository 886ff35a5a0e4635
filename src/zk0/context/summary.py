"""What was to be done, how far it got, and on what it ran."""

from __future__ import annotations

from typing import Any

from zk0.context.facts import STAGE_FILES, Facts, get
from zk0.machine import GIB
from zk0.params import Params

_OBJECTIVES = {
    "federate": "Train one policy over {sites} sites in {rounds} rounds of {strategy}, and compare it with its base",
    "train": "Train the policy on local data, exchange it with the server, and validate the global model",
    "client": "Set up a site and let it take part in federated rounds",
    "server": "Set up the server that averages the sites' updates in {rounds} rounds of {strategy}",
    "deploy": "Start the federation's services securely and check that they are healthy",
    "testing": "Test components, client and server together and a whole federation, and report the coverage",
    "benchmark": "Measure training, inference and transport on this machine",
}


def objective(facts: Facts) -> tuple[str | None, str]:
    """What the flow is for, or None and why that is not known."""
    text, params = _OBJECTIVES.get(facts.flow), facts.params
    if text is None:
        return None, f"no objective is recorded for a flow named '{facts.flow}'"
    if params is None:
        return None if "{" in text else text, facts.no_params
    return text.format(
        sites=_site_count(params), rounds=params.federation.rounds, strategy=params.federation.strategy
    ), ""


def _site_count(params: Params) -> int:
    return len(params.data.sites) if params.data.partition.scheme == "none" else params.data.partition.sites


def scope(facts: Facts) -> dict[str, list[str]]:
    """What the run covers, and which stages and tasks it leaves out."""
    included = [step.name for step in facts.stages]
    if facts.params:
        included += [f"site {name}: {source}" for name, source in facts.params.data.sites.items()]
    excluded = []
    if any(facts.step_of(stage) for stage in STAGE_FILES):
        excluded = [f"stage {stage}: not run" for stage in STAGE_FILES if not facts.step_of(stage)]
    if facts.params:
        excluded += [f"training on {name}: {source}" for name, source in facts.params.data.unseen.items()]
    return {key: value for key, value in (("included", included), ("excluded", excluded)) if value}


def current_state(facts: Facts) -> dict[str, Any]:
    """How the run and each step ended, and which round is the best."""
    state: dict[str, Any] = {"outcome": facts.outcome}
    if facts.stages:
        state["steps"] = [f"{step.name}: {step.state} in {step.seconds:.1f} s" for step in facts.stages]
    if facts.error:
        state["error"] = facts.error
    if facts.finished("federate") and facts.run:
        best, loss = facts.run.get("best_round"), facts.run.get("best_held_out_loss")
        state["global model"] = f"round {best} of {facts.run.get('rounds')} is the best, held-out loss {loss}"
    return state


def dependencies(facts: Facts) -> dict[str, Any]:
    """Code, data, starting policy and packages, each by revision, digest or version."""
    found: dict[str, Any] = {}
    if facts.git:
        found["code"] = f"git revision {facts.git}"
    if facts.sources:
        found["data"] = [f"{name}: {_at(entry)}" for name, entry in facts.sources.items()]
    if policy := get(facts.lock, "policy"):
        found["starting policy"] = _at(policy)
    if packages := get(facts.environment, "packages"):
        found["external"] = [f"{name} {version}" for name, version in packages.items()]
    return found


def _at(entry: dict[str, Any]) -> str:
    return f"{entry.get('source')} at {entry.get('digest')}"


def limits(facts: Facts) -> dict[str, str]:
    """What the machine and the params hold the run to."""
    if facts.params is None:
        return {}
    params, found = facts.params, {}
    if this := get(facts.environment, "machine"):
        gpus = ", ".join(gpu["name"] for gpu in this["gpus"]) or "no GPU"
        found["machine"] = f"{this['cores']} cores, {this['memory_bytes'] / GIB:.1f} GiB of memory, {gpus}"
        found["disk"] = f"{this['disk_free_bytes'] / GIB:.1f} GiB were free"
    found["technical"] = f"device {params.policy.device}, {params.threads} threads"
    found["time"] = f"replies of a round within {params.federation.timeout_s:g} s"
    found["resources"] = f"images decoded in memory up to {params.data.decoded_limit_bytes:,} bytes a site"
    return found
