"""What the fields of a task context say, from what was to be done to what whoever takes over does first."""

from __future__ import annotations

from pathlib import Path

from zk0.context.facts import LOCK, RUN, SITE, STAGE_FILES, Facts
from zk0.digests import digest_file
from zk0.machine import GIB
from zk0.machine.packages import LOCK_FILE
from zk0.params import Params
from zk0.sources import LockEntry

Texts = dict[str, str | list[str] | dict[str, str]]

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
    sites = _site_count(params)
    return text.format(sites=sites, rounds=params.federation.rounds, strategy=params.federation.strategy), ""


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


def current_state(facts: Facts) -> Texts:
    """How the run and each step ended, and which round is the best."""
    state: Texts = {"outcome": facts.outcome}
    if facts.stages:
        state["steps"] = [f"{step.name}: {step.state} in {step.seconds:.1f} s" for step in facts.stages]
    if facts.error:
        state["error"] = facts.error
    if facts.finished("federate") and (run := facts.run):
        best = f"round {run.best_round} of {run.rounds} is the best"
        state["global model"] = f"{best}, held-out loss {run.best_held_out_loss}"
    return state


def dependencies(facts: Facts) -> Texts:
    """Code, data, starting policy and packages, each by revision, digest or version."""
    found: Texts = {}
    if facts.git:
        found["code"] = f"git revision {facts.git}"
    if facts.sources:
        found["data"] = [f"{name}: {_at(entry)}" for name, entry in facts.sources.items()]
    if facts.start:
        found["starting policy"] = _at(facts.start)
    if facts.environment and facts.environment.packages:
        found["external"] = [f"{name} {version}" for name, version in facts.environment.packages.items()]
    return found


def _at(entry: LockEntry) -> str:
    return f"{entry['source']} at {entry['digest']}"


def limits(facts: Facts) -> dict[str, str]:
    """What the machine and the params hold the run to."""
    if facts.params is None:
        return {}
    params, found = facts.params, {}
    if facts.environment and (this := facts.environment.machine).cores:
        gpus = ", ".join(gpu.name for gpu in this.gpus) or "no GPU"
        found["machine"] = f"{this.cores} cores, {(this.memory_bytes or 0) / GIB:.1f} GiB of memory, {gpus}"
        found["disk"] = f"{(this.disk_free_bytes or 0) / GIB:.1f} GiB were free"
    found["technical"] = f"device {params.policy.device}, {params.threads} threads"
    found["time"] = f"replies of a round within {params.federation.timeout_s:g} s"
    found["resources"] = f"images decoded in memory up to {params.data.decoded_limit_bytes:,} bytes a site"
    return found


def critical_information(facts: Facts) -> Texts:
    """The digests by which everything of this run is found again."""
    found: dict[str, str | dict[str, str] | None] = {"params digest": facts.params_digest}
    found["starting policy digest"] = facts.start["digest"] if facts.start else None
    found["source digests"] = {name: entry["digest"] for name, entry in facts.sources.items()}
    if run := facts.run:
        if not facts.finished("federate"):
            found["of an earlier run"] = f"run, dataset and checkpoint digests: {RUN} was not written by this one"
        found |= {"run": run.run, "base digest": run.base.digest}
        found["dataset digests"] = {name: site.digest for name, site in run.sites.items() if site.digest}
        found["checkpoint digests"] = {"best": run.checkpoints.best.digest, "last": run.checkpoints.last.digest}
    return {key: value for key, value in found.items() if value}


def key_decisions(facts: Facts) -> list[dict[str, str]]:
    """What was decided, by params, by the run itself or by who deployed it, and on what ground."""
    decided: list[tuple[str, str]] = []
    if facts.params:
        federation = facts.params.federation
        if facts.start:
            ours = facts.start["source"] == facts.params.policy.base
            why = "policy.base in params.yaml" if ours else "ZK0_BASE when validated"
            decided.append((f"start from {facts.start['source']}", why))
        decided.append(
            (f"{federation.strategy}, sites weighted by {federation.weighting}", "federation in params.yaml")
        )
        if facts.finished("federate") and (run := facts.run):
            decided.append((f"round {run.best_round} is the best", f"lowest held-out loss: {run.best_held_out_loss}"))
            decided += [(f"resumed at round {number}", "an earlier attempt ended") for number in run.resumed_at_rounds]
            for one in facts.rounds:
                decided += [(f"round {one.round} without {site}", why) for site, why in one.left_out.items()]
    for risk in facts.deployed("review").risks:
        decided.append((f"keep {risk.setting}", f"not refused, although {risk.why}"))
    return [{"decision": decision, "why": why} for decision, why in decided]


def assumptions(facts: Facts) -> list[str]:
    """What the run takes for granted: params that data must fit, and checks that only warned."""
    if facts.params is None:
        return []
    params = facts.params
    warned = facts.environment.failing("warning") if facts.environment else []
    return [
        f"every site has {params.data.fps} frames a second, of those it records or of those taken",
        f"{params.data.held_out:.0%} of each site's episodes are kept from training",
        f"a round needs good replies from {params.federation.min_replies:.0%} of the sites",
        f"the same numbers come only with seed {params.seed}, {params.threads} threads, policy.processes "
        f"{params.policy.processes} and device {params.policy.device}",
        *(f"it works although {check.name} is not as expected: {check.found}" for check in warned),
    ]


def context_inheritance(facts: Facts) -> dict[str, str]:
    """What a subtask must start from to be part of the same run."""
    if facts.params is None:
        return {}
    found = {"params": f"params.yaml at {facts.params_digest}", "seed": str(facts.params.seed)}
    if facts.lock:
        found["sources"] = f"{LOCK} at {digest_file(facts.root / LOCK)}"
    if (facts.root / LOCK_FILE).is_file():
        found["packages"] = f"{LOCK_FILE.as_posix()} at {digest_file(facts.root / LOCK_FILE)}"
    if facts.git:
        found["code"] = f"git revision {facts.git}"
    return found


def handover_information(facts: Facts) -> list[str]:
    """The results that the next task finds, with their digests where they have one."""
    found = []
    for stage, names in STAGE_FILES.items():
        for name in filter(facts.has, names):
            made = facts.run.checkpoints if facts.run and name.startswith("checkpoints") else None
            digest = getattr(made, Path(name).name).digest if made else ""
            age = "" if facts.finished(stage) else " (of an earlier run)"
            found.append(name + (f" at {digest}" if digest else "") + age)
    return [*found, *([SITE] if facts.site else [])]


def loss_points(facts: Facts) -> list[str]:
    """Where something of this run is lost, or could be."""
    points = [f"{step.name} failed: its results are missing or of an earlier run" for step in facts.failed]
    points += [f"{name} is missing, although its stage finished" for name in facts.lost]
    if facts.has("state"):
        points.append("state/ is in neither git nor DVC: without it an unfinished run starts again")
    if facts.git and "," in facts.git:
        points.append("uncommitted changes: the git revision does not describe the code that ran")
    points += [f"{source} may be another commit tomorrow" for source in facts.moving]
    return points


def recovery_procedures(facts: Facts) -> list[str]:
    """The commands that bring the run, or its results, back."""
    name, last = facts.root.name, facts.rounds[-1].round if facts.rounds else None
    left_nothing = not facts.has("state") and facts.failed
    if facts.flow == "train":
        if left_nothing:
            return ["nothing was trained, and nothing is left of it: mend what the error names and start it again"]
        after = "" if last is None else f", after round {last}"
        return [f"`zk0 train --name {name}`, from the project's root, goes on with it{after}"]
    if facts.flow == "client":
        if left_nothing:
            return ["nothing was joined, and nothing is left of it: mend what the error names and join again"]
        return [
            f"`zk0 client start {name}`, from the project's root, starts the site again; it takes part in the next "
            "round",
            f"`zk0 client status {name}` shows whether it runs, what it did last, and where its logs are",
        ]
    if facts.flow == "deploy":
        return [
            "`zk0 deploy` starts what does not run, and changes nothing else",
            "`zk0 restore FILE` puts keys, sites, states and runs back from a file of `zk0 backup`",
        ]
    return _pipeline_recovery(facts, last)


def _pipeline_recovery(facts: Facts, last: int | None) -> list[str]:
    lines = []
    federate = facts.step_of("federate")
    if federate and federate.state == "Failed":
        states = sorted((facts.root / "state").glob("*/"), key=lambda folder: folder.stat().st_mtime)
        if states:
            ends = "" if last is None else f"; rounds.jsonl ends with round {last}"
            after = f"continues after the last complete round, from state/{states[-1].name}/{ends}"
        else:
            after = "starts from round 1: there is no saved state"
        again = "`zk0 server run`" if facts.flow == "server" else "`zk0 federate`"
        lines.append(f"{again} {after}")
    others = [step.stage or step.name for step in facts.failed if step is not federate]
    lines += [f"`dvc repro` runs {stage} again, and nothing that is fresh" for stage in others if stage in STAGE_FILES]
    lines += [f"`dvc repro` makes {name} again" for name in facts.lost]
    if facts.has("dvc.lock"):
        lines.append("`dvc checkout` puts back the results that dvc.lock names")
    if facts.run:
        lines.append(f"`zk0 track` writes the MLflow run again from {RUN}")
    return lines


def prevention_measures(facts: Facts) -> list[str]:
    """What to do now so that the next run loses nothing."""
    lines = []
    if facts.has("dvc.lock"):
        lines.append("commit dvc.lock together with params.yaml: they name every result by digest")
    if facts.has("state"):
        lines.append("keep state/ until the run has finished; it is saved whole after each round")
    if facts.git and "," in facts.git:
        lines.append("commit before a run, so that its revision says what ran")
    lines += [f"write {source} with a commit after the @" for source in facts.moving]
    return lines


def transition(facts: Facts) -> str | None:
    """What whoever takes over does first, or None where there is nothing to take over."""
    if facts.failed or facts.error:
        where = f" in {facts.failed[0].name}" if facts.failed else ""
        first = "See" if facts.outcome == "Cancelled" else "Mend what the error names, then see"
        return f"Ended as {facts.outcome}{where}. {first} Recovery Procedures."
    if facts.run is None or (not facts.finished("federate") and not facts.finished("evaluate")):
        return None
    best = facts.run.checkpoints.best
    if facts.finished("evaluate"):
        return f"{best.path} at {best.digest} is evaluated and can be compared with the champion."
    return f"{best.path} at {best.digest} is trained and not yet evaluated."
