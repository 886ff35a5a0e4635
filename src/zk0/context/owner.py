"""A task context in short, as the owner of an arm asks: what of mine was used, what left, what came of it, what now."""

from __future__ import annotations

from zk0.context.facts import EVALUATION, REPORT, Facts
from zk0.context.fields import recovery_procedures
from zk0.data.manifest import Manifest
from zk0.records.results import Task
from zk0.records.run import Site
from zk0.reporting.format import data_size, degrees, duration
from zk0.reporting.verdict import what_next as mend

_WITH_RECORDINGS = ("federate", "train", "client", "server")


def why_nothing(facts: Facts) -> str:
    """Why a field of this section says nothing."""
    if facts.flow not in _WITH_RECORDINGS:
        return f"the {facts.flow} flow uses no recording"
    return "it did not come so far"


def trained_on(facts: Facts) -> list[str]:
    """The recordings of each site: how many, how long, and how many were kept to judge by."""
    sites = facts.own_run.sites if facts.own_run else facts.manifests
    return [f"{name}: {_counted(site)}" for name, site in sites.items()]


def _counted(site: Site | Manifest) -> str:
    if not site.train_episodes:
        return site.source
    lasting = f" ({duration(site.train_frames / site.fps)})" if site.train_frames and site.fps else ""
    return f"{len(site.train_episodes)} episodes{lasting}, and {len(site.held_out_episodes)} kept to judge by"


def left_the_machine(facts: Facts) -> list[str]:
    """What was sent from here, and how much."""
    if site := facts.site:
        up, down = (sum(getattr(one, way) or 0 for one in site.rounds) for way in ("bytes_up", "bytes_down"))
        return [
            f"{data_size(up)} to the server, in {len(site.rounds)} rounds: updates of the model, means and losses; "
            f"{data_size(down)} came back",
            "no recording, no picture, and nothing that was computed of a single frame",
        ]
    run, params = facts.own_run, facts.params
    if run is None or params is None:
        return []
    up, down = sum(one.bytes_up for one in facts.rounds), sum(one.bytes_down for one in facts.rounds)
    if facts.flow == "server":
        lines = [f"{data_size(down)} to the sites, the model of each round; {data_size(up)} of updates came from them"]
    elif params.engine.name == "ray":
        lines = ["recordings went to this run's own workers, wherever the Ray cluster has them, and nothing elsewhere"]
    else:
        sent = f"they would have sent {data_size(up)} and received {data_size(down)} in {run.rounds} rounds"
        lines = [f"nothing: all sites trained on this machine; over a network {sent}"]
    if run.privacy and run.privacy.epsilon is not None:
        spent, delta = f"{run.privacy.epsilon:.3g}", f"{run.privacy.delta or 0:g}"
        lines.append(f"noise hides what one site contributes: epsilon {spent} at delta {delta}")
    return lines


def came_of_it(facts: Facts) -> list[str]:
    """What the model does on each site's own task, before and after, and whether it may drive an arm."""
    if (judged := facts.own_evaluation) is None:
        losses = [one.held_out_loss for one in facts.site.rounds if one.held_out_loss is not None] if facts.site else []
        if not losses:
            return []
        return [f"loss on your kept episodes {losses[0]:.3g} after the first round, {losses[-1]:.3g} after the last"]
    safety = judged.safety.trained
    beyond = ", ".join(dict.fromkeys(safety.failed))
    safe = "passed" if safety.passed else f"not passed ({beyond}): let it drive no arm"
    tasks = judged.with_role("site").items()
    return [*(f"{task.sentence or name}: {_before_and_after(task)}" for name, task in tasks), f"safety check: {safe}"]


def _before_and_after(task: Task) -> str:
    old, new = task.base, task.trained
    told = f"{degrees(new.action_error_deg)} from what was recorded, a joint on average"
    told += f" (before: {degrees(old.action_error_deg)})"
    if not new.rollouts:
        return told
    return f"{new.successes} of {new.rollouts} tries succeed (before: {old.successes} of {old.rollouts}); {told}"


def what_next(facts: Facts) -> list[str]:
    """The commands that go on from here."""
    if facts.failed or facts.error:
        return recovery_procedures(facts)[:1]
    if facts.flow == "client":
        return [*recovery_procedures(facts)[-1:], "the operator has the model that came of it: ask for it"]
    if (judged := facts.own_evaluation) is None:
        return []
    if not judged.safety.trained.passed:
        return mend(judged.safety.trained) or [f"{EVALUATION} has the figures of the safety check"]
    of = f" --params trainings/{facts.root.name}/params.yaml" if facts.flow == "train" else ""
    return [
        *([f"{REPORT} shows it, with films"] if facts.finished("report") else []),
        f"`zk0 runs{of}` names the model's version",
        f"`zk0 publish VERSION --to local:FOLDER{of}` writes the model with the command that lets it drive your arm",
    ]
