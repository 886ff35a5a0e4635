"""One HTML file that tells what a run did and whether it helped, and opens without a network."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from zk0.files import write_text
from zk0.records.comparison import Comparison
from zk0.records.files import FILMS, RecordError, film, read, read_journal, read_rounds, require
from zk0.records.paths import EVALUATION, ROUNDS
from zk0.records.results import Benchmark, Environment, Evaluation, Video
from zk0.records.run import Event, Round, Run
from zk0.reporting import curves, figures, view
from zk0.reporting.beside import study_beside
from zk0.reporting.pages import environment, verbatim
from zk0.reporting.verdict import judge, what_next


@dataclass(frozen=True)
class Inputs:
    """Everything the report shows, except the videos' bytes."""

    environment: Environment
    run: Run
    rounds: list[Round]
    events: list[Event]
    evaluation: Evaluation
    benchmark: Benchmark
    study: Comparison | None = None


@dataclass(frozen=True)
class Plot:
    """A figure on the page: what it shows in words, and plotly's JSON for the script to draw."""

    id: str
    caption: str
    height: int
    json: Markup


@dataclass(frozen=True)
class Clip:
    """A film of one rollout, and whether it ended well."""

    success: bool
    uri: str


@dataclass
class Scene:
    """One scene, met by both models; None where a model was not filmed."""

    seed: int
    base: Clip | None = None
    trained: Clip | None = None


@dataclass
class TaskScenes:
    """The scenes of one task that are shown, each filmed with both models."""

    name: str
    sentence: str
    unseen: bool
    scenes: list[Scene] = field(default_factory=list)
    joints: Plot | None = None


def write_report(root: Path, out: Path) -> None:
    """Write the report of the run below a project's root.

    The same results give the same bytes: nothing in the file depends on when it was written.

    Args:
        root: Project root, the folder above ``results``.
        out: The HTML file.

    Raises:
        MissingRecordError: A result file or a video is not there; names it and the command that makes it.
        RecordError: A result file does not hold what it should; names the file and the place.
    """
    inputs = read_inputs(root)
    write_text(out, render(inputs, read_scenes(root, inputs.evaluation)))


def read_inputs(root: Path) -> Inputs:
    """The results below a project's root; see :func:`write_report` for what it raises."""
    require(root, Environment, Run, Round, Event, Evaluation, Benchmark)
    rounds = read_rounds(root)
    if not rounds:
        raise RecordError(f"{root / ROUNDS} holds no round, not even round 0; run `zk0 federate` again")
    run = read(root, Run)
    return Inputs(
        environment=read(root, Environment),
        run=run,
        rounds=rounds,
        events=read_journal(root),
        evaluation=read(root, Evaluation),
        benchmark=read(root, Benchmark),
        study=study_beside(root, run),
    )


def render(inputs: Inputs, scenes: list[TaskScenes]) -> str:
    """The report as one HTML page that needs no other file."""
    verdict = judge(inputs.evaluation, inputs.run.best_round)
    page = environment().get_template("report.html.j2")
    return page.render(
        run=inputs.run,
        rounds=inputs.rounds,
        events=inputs.events,
        environment=inputs.environment,
        evaluation=inputs.evaluation,
        benchmark=inputs.benchmark,
        study=inputs.study,
        scenes=scenes,
        verdict=verdict,
        tiles=view.tiles(verdict, inputs.evaluation),
        unseen=view.unseen_sites(inputs.run, inputs.evaluation),
        task_rows=view.task_rows(inputs.evaluation),
        safety_rows=view.safety_rows(inputs.evaluation.safety),
        what_next=what_next(inputs.evaluation.safety.trained),
        left_out=view.left_out(inputs.rounds),
        site_bytes=view.site_bytes(inputs.rounds),
        site_seconds=view.site_seconds(inputs.rounds),
        params_sections=view.params_sections(inputs.run.params),
        plots=_plots(inputs),
        versions={**inputs.environment.packages, **inputs.run.versions},
        styles=verbatim("styles.css"),
        script=verbatim("report.js"),
        plotly=Markup(get_plotlyjs()),
    )


def _plots(inputs: Inputs) -> dict[str, Plot]:
    """Every figure by its name; those without data are left out."""
    rounds, evaluation = inputs.rounds, inputs.evaluation
    plots = [
        _plot(
            "held-out-loss",
            curves.held_out_loss(rounds, inputs.run.best_round),
            "Held-out loss after each round: each site, and the mean over all their frames. Round 0 is the starting "
            "model with the sites' statistics; the star marks the best round.",
        ),
        _plot("train-loss", curves.train_loss(rounds), "Mean training loss of each round."),
        _plot("update-norm", curves.update_norm(rounds), "Size of what each site sent, before averaging."),
        _plot("learning-rate", curves.learning_rate(rounds), "Learning rate by round."),
        _plot(
            "action-error",
            figures.action_error(evaluation.tasks),
            "Mean absolute action error of the arm's joints on held-out frames. Lower is better.",
        ),
        _plot("bytes-by-round", curves.bytes_by_round(rounds), "Bytes sent in each round, all sites together."),
        _plot(
            "bytes-by-site",
            curves.bytes_by_site(view.site_bytes(rounds)),
            "Bytes of each site over the whole run.",
        ),
        _plot(
            "seconds",
            curves.seconds_by_round(rounds),
            "Where the time went. Sites' seconds are summed; where sites work at the same time, "
            "the stack is taller than the round was long.",
        ),
    ]
    if driven := {name: task for name, task in evaluation.tasks.items() if task.trained.rollouts}:
        told = "Closed-loop success by task. Whiskers are 95% Wilson intervals."
        plots.append(_plot("success", figures.success(driven), told))
    if steps := figures.steps_beyond(evaluation.safety):
        told = (
            "Share of the steps that ask for more than so many of the arm's longest steps. An arm cuts what is beyond "
            "one, to less than half what is beyond two; a curve above a mark fails."
        )
        plots.append(_plot("steps-beyond", steps, told))
    if spent := curves.epsilon(rounds):
        delta = max(one.delta or 0.0 for one in rounds)
        told = f"What one site's data may change in all that was released so far: epsilon, at delta {delta:g}."
        plots.append(_plot("epsilon", spent, told))
    if maps := figures.joint_errors(evaluation):
        plots.append(
            _plot(
                "joints-base",
                maps[0],
                "Base: action error by joint, the gripper in percent. Both maps share one scale.",
            )
        )
        plots.append(_plot("joints-global", maps[1], "Global: action error by joint, the gripper in percent."))
    return {plot.id: plot for plot in plots}


def _plot(name: str, figure: go.Figure, caption: str) -> Plot:
    """A figure with its caption; plotly's JSON escapes <, > and /, so it cannot end its script element."""
    return Plot(name, caption, int(figure.layout.height), Markup(figure.to_json()))


def read_scenes(root: Path, evaluation: Evaluation) -> list[TaskScenes]:
    """Read every film that the evaluation lists.

    Raises:
        MissingRecordError: A film is not there.
        RecordError: A film has an unknown kind, a place outside the project, or a task that was
            not evaluated.
    """
    scenes: dict[tuple[str, int], Scene] = {}
    for video in evaluation.videos:
        if video.task not in evaluation.tasks:
            raise RecordError(f"{root / EVALUATION} lists a video of '{video.task}', a task it did not evaluate")
        scene = scenes.setdefault((video.task, video.seed), Scene(video.seed))
        clip = Clip(video.success, _data_uri(root, video))
        if video.model == "base":
            scene.base = clip
        else:
            scene.trained = clip
    tasks: list[TaskScenes] = []
    for name, task in [*evaluation.with_role("site").items(), *evaluation.with_role("unseen").items()]:
        own = [scene for (of, _), scene in sorted(scenes.items()) if of == name]
        if own:
            joints = _joints(evaluation, name, len(tasks))
            tasks.append(TaskScenes(name, task.sentence, task.role == "unseen", own, joints))
    return tasks


def _joints(evaluation: Evaluation, task: str, number: int) -> Plot | None:
    """The joints of a task's first filmed scene, as the global model drove them; None where nobody wrote them down."""
    traced = ((video.seed, video.trace) for video in evaluation.videos if video.task == task and video.trace)
    seed, trace = min(traced, key=lambda one: one[0], default=(0, None))
    if trace is None:
        return None
    fastest = view.fastest_joint(trace, evaluation.max_relative_target or {})
    caption = f"Joints in scene {seed}, driven by the global model; gripper in percent of its opening. {fastest}"
    return _plot(f"joints-{number}", figures.joints_over_time(trace), caption)


def _data_uri(root: Path, video: Video) -> str:
    """A film as a data URI, which a page can hold."""
    file = film(root, video)
    return f"data:{FILMS[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
