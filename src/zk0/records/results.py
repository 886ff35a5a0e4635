"""What the stages around a federation find, and what deployments and sites leave for their task context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from zk0.records.base import Bytes, Degrees, Loss, Machine, Rate, Record, Time

Role = Literal["site", "unseen"]
Model = Literal["base", "global"]
MODELS: tuple[Model, Model] = ("base", "global")
# Multiples of an arm's longest step, beyond which the steps that a model asks for are counted.
STEP_MULTIPLES = tuple(round(0.1 * tenth, 1) for tenth in range(41))


class Check(Record):
    """One check of the environment."""

    name: str
    passed: bool
    severity: str = "error"
    found: Any = None
    expected: Any = None
    advice: str | None = None


class Environment(Record):
    """What `validate` found: results/environment.json."""

    created: Time | None = None
    passed: bool
    checks: tuple[Check, ...] = ()
    machine: Machine = Machine()
    packages: dict[str, str | None] = Field(default_factory=dict)

    def failing(self, severity: str) -> list[Check]:
        """The checks of a severity, ``error`` or ``warning``, that did not pass."""
        return [check for check in self.checks if not check.passed and check.severity == severity]


class Pair[T](Record):
    """The base and the global model, measured alike."""

    base: T
    trained: T = Field(alias="global")

    def of(self, model: Model) -> T:
        """One of the two, by its name in the file."""
        return self.base if model == "base" else self.trained

    def named(self) -> Iterator[tuple[Model, T]]:
        """Both, with their names in the file."""
        yield from ((model, self.of(model)) for model in MODELS)


class TaskScore(Record):
    """A model on a task: loss and error on held-out frames, closed-loop successes as an arm drives, and their scenes.

    Rates and steps are null where no arm was driven, since 0 is a result.
    """

    held_out_loss: Loss = None
    action_error_deg: Annotated[float | None, Field(description="Mean over the five arm joints, degrees")] = None
    action_error_deg_by_joint: Annotated[dict[str, float | None], Field(description="Degrees; gripper percent")] = (
        Field(default_factory=dict)
    )
    episode_errors_deg: Annotated[dict[str, float], Field(description="Held-out episode to its error, degrees")] = (
        Field(default_factory=dict)
    )
    held_out_frames: int | None = None
    rollouts: int = 0
    successes: int = 0
    success_rate: Rate = None
    success_low: Annotated[float | None, Field(description="Wilson's 95% interval, from")] = None
    success_high: Annotated[float | None, Field(description="Wilson's 95% interval, to")] = None
    raw_success_rate: Annotated[float | None, Field(description="The same scenes, no step limited")] = None
    mean_steps: Annotated[float | None, Field(description="Steps of a rollout")] = None
    outcomes: dict[str, bool] = Field(default_factory=dict, description="Rollout seed to whether it succeeded")


class Task(Pair[TaskScore]):
    """A task and both models' scores on it."""

    role: Role
    sentence: str = ""
    source: str | None = None
    digest: Annotated[str | None, Field(description="Of its manifest: which recordings it was judged on")] = None
    no_rollouts: Annotated[str | None, Field(description="Why no arm was driven; null where one was")] = None


class Overall(Record):
    """A model as `evaluate` summed it up: means over the sites, successes over all tasks."""

    held_out_loss: Loss = None
    action_error_deg: Degrees = None
    success_rate_seen: Rate = None
    success_rate_unseen: Rate = None
    raw_success_rate_seen: Annotated[float | None, Field(description="On the sites' tasks, no step limited")] = None
    successes: int | None = None
    rollouts: int | None = None


class SafetyCheck(Record):
    """One rule for the actions; `worst` may not be above `limit`."""

    name: str
    unit: Annotated[str, Field(description="Of limit and worst")] = ""
    limit: float | None = None
    worst: float | None = None
    passed: bool
    joint: Annotated[str | None, Field(description="The one that did worst")] = None


class Safety(Record):
    """Whether a model's actions stay within what the arm may do."""

    passed: bool
    checks: tuple[SafetyCheck, ...] = ()
    steps_beyond: Annotated[
        dict[str, tuple[float, ...]],
        Field(description="Where actions were taken to the share of the steps beyond each of STEP_MULTIPLES"),
    ] = Field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that it did not pass."""
        return tuple(check.name for check in self.checks if not check.passed)


class ModelFile(Record):
    """Which checkpoint was judged."""

    path: str | None = None
    digest: Annotated[str, Field(description="Of the folder")]
    round: int | None = None


class JointTrace(Record):
    """A rollout's joints by control step, in LeRobot's units: degrees, the gripper in percent."""

    hz: Annotated[float, Field(description="Control steps a second")]
    joints: tuple[str, ...]
    positions: Annotated[tuple[tuple[float, ...], ...], Field(description="(steps + 1, joints): where they were")]
    asked: Annotated[tuple[tuple[float, ...], ...], Field(description="(steps, joints): what the policy asked for")]
    sent: Annotated[tuple[tuple[float, ...], ...], Field(description="(steps, joints): what the arm was given")]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        steps, rows = len(self.asked), [*self.positions, *self.asked, *self.sent]
        if not steps or len(self.sent) != steps or len(self.positions) != steps + 1:
            raise ValueError("a trace has at least one step, and one position more than steps")
        if any(len(row) != len(self.joints) for row in rows):
            raise ValueError("a row of a trace has a value for each joint")
        return self


class Video(Record):
    """One filmed rollout."""

    task: str
    model: Model
    seed: int
    success: bool
    file: Annotated[str, Field(description="Below the project's folder")]
    trace: JointTrace | None = None


class Evaluation(Record):
    """What `evaluate` found: results/evaluation.json."""

    models: Pair[ModelFile]
    settings: dict[str, int | float] = Field(
        default_factory=dict, description="What besides the task decides a rollout"
    )
    tasks: dict[str, Task]
    overall: Pair[Overall]
    safety: Pair[Safety]
    max_relative_target: Annotated[
        dict[str, float] | None, Field(description="Joint to the longest step for an arm, degrees or percent")
    ] = None
    videos: tuple[Video, ...] = ()

    def with_role(self, role: Role) -> dict[str, Task]:
        """The tasks that sites trained on, or those that none did."""
        return {name: task for name, task in self.tasks.items() if task.role == role}


class BenchmarkRow(Record):
    """One measured figure."""

    name: str
    value: float | None = None
    unit: Annotated[str, Field(description="Of value, p50 and p95")] = ""
    p50: float | None = None
    p95: float | None = None
    detail: str | None = None


class Benchmark(Record):
    """What `benchmark` measured."""

    created: Time
    machine: Machine = Machine()
    rows: list[BenchmarkRow]


class Tracking(Record):
    """Where `track` put a run in MLflow: results/tracking.json."""

    run_id: Annotated[str, Field(description="MLflow's")]
    model: str
    model_version: int


class SiteTurn(Record):
    """A round in which a site trained: run, round, loss, seconds, and bytes both ways."""

    held_out_loss: Annotated[
        float | None, Field(description="Of what came of it, on the site's own; as :data:`Loss`")
    ] = None
    judged: Annotated[bool, Field(description="Whether it judged what came of the round")] = False
    bytes_up: Bytes = 0
    bytes_down: Bytes = 0


class SiteSummary(Record):
    """What a site did in the rounds of a federation over a network while somebody watched it."""

    connected: bool = False
    state: str = ""
    rounds: tuple[SiteTurn, ...] = ()
    failures: tuple[str, ...] = ()


class Need(Record):
    """A resource that a deployment asks for."""

    name: str
    fits: bool


class Risk(Record):
    """A setting that was kept, and what may come of it."""

    setting: str
    why: str


class DeploymentFacts(Record):
    """What a step of a deployment found."""

    checks: tuple[Check, ...] = ()
    needs: tuple[Need, ...] = ()
    risks: tuple[Risk, ...] = ()


class DeploymentStep(Record):
    """A step of a deployment."""

    facts: DeploymentFacts


class Deployment(Record):
    """The steps of a deployment that a context tells of."""

    review: DeploymentStep | None = Field(None, alias="configuration review")
    resources: DeploymentStep | None = Field(None, alias="resource allocation")
    health: DeploymentStep | None = Field(None, alias="health checks")
