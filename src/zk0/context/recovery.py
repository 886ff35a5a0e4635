"""What may be lost, how it comes back, and what keeps it from being lost."""

from __future__ import annotations

from zk0.context.facts import RUN, STAGE_FILES, Facts, get
from zk0.context.operations import deployment_recovery, site_recovery


def loss_points(facts: Facts) -> list[str]:
    """Where something of this run is lost, or could be."""
    points = [f"{step.name} failed: its results are missing or of an earlier run" for step in facts.failed]
    points += [f"{name} is missing, although its stage finished" for name in facts.lost]
    if (facts.root / "state").is_dir():
        points.append("state/ is in neither git nor DVC: without it an unfinished run starts again")
    if facts.git and "," in facts.git:
        points.append("uncommitted changes: the git revision does not describe the code that ran")
    points += [f"{source} may be another commit tomorrow" for source in facts.moving]
    if (facts.root / "mlflow.db").is_file():
        points.append("mlflow.db names artifacts by absolute path: a moved project does not find them")
    return points


def recovery_procedures(facts: Facts) -> list[str]:
    """The commands that bring the run, or its results, back."""
    if facts.flow == "train":
        return _trainings_recovery(facts)
    if facts.flow == "client":
        return site_recovery(facts)
    if facts.flow == "deploy":
        return deployment_recovery(facts)
    lines = []
    federate = facts.step_of("federate")
    if federate and federate.state == "Failed":
        states = sorted((facts.root / "state").glob("*/"), key=lambda folder: folder.stat().st_mtime)
        if states:
            last = f"; rounds.jsonl ends with round {facts.rounds[-1].get('round')}" if facts.rounds else ""
            after = f"continues after the last complete round, from state/{states[-1].name}/{last}"
        else:
            after = "starts from round 1: there is no saved state"
        again = "`zk0 server run`" if facts.flow == "server" else "`zk0 federate` or `dvc repro`"
        lines.append(f"{again} {after}")
    others = [step.stage or step.name for step in facts.failed if step is not federate]
    lines += [f"`dvc repro` runs {stage} again, and nothing that is fresh" for stage in others if stage in STAGE_FILES]
    lines += [f"`dvc repro` makes {name} again" for name in facts.lost]
    if (facts.root / "dvc.lock").is_file():
        lines.append("`dvc checkout` puts back the results that dvc.lock names")
    if facts.run:
        lines.append(f"`zk0 track` writes the MLflow run again from {RUN}")
    return lines


def _trainings_recovery(facts: Facts) -> list[str]:
    """A training goes on by one command, whichever step it ended in; one that was refused left nothing."""
    if not (facts.root / "state").is_dir() and facts.failed:
        return ["nothing was trained, and nothing is left of it: mend what the error names and start it again"]
    last = f", after round {facts.rounds[-1].get('round')}" if facts.rounds else ""
    return [f"`zk0 train --name {facts.root.name}`, from the project's root, goes on with it{last}"]


def prevention_measures(facts: Facts) -> list[str]:
    """What to do now so that the next run loses nothing."""
    lines = []
    if (facts.root / "dvc.lock").is_file():
        lines.append("commit dvc.lock together with params.yaml: they name every result by digest")
    if (facts.root / "state").is_dir():
        lines.append("keep state/ until the run has finished; it is saved whole after each round")
    if facts.git and "," in facts.git:
        lines.append("commit before a run, so that its revision says what ran")
    lines += [f"write {source} with a commit after the @" for source in facts.moving]
    return lines


def transition(facts: Facts) -> str | None:
    """What whoever takes over does first, or None where there is nothing to take over."""
    if facts.failed or facts.error:
        where = f" in {facts.failed[0].name}" if facts.failed else ""
        return f"Ended as {facts.outcome}{where}. Mend what the error names, then see Recovery Procedures."
    best = get(facts.run, "checkpoints", "best")
    if facts.finished("evaluate") and best:
        return f"{best.get('path')} at {best.get('digest')} is evaluated and can be compared with the champion."
    if facts.finished("federate") and best:
        return f"{best.get('path')} at {best.get('digest')} is trained and not yet evaluated."
    return None
