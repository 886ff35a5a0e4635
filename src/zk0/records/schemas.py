"""The shapes of the result files, as far as the report shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    # Later stages may write more than the report shows; only what it shows is checked.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Check(_Record):
    """One check of the environment."""

    name: str
    passed: bool
    severity: str = "error"
    found: Any = None
    expected: Any = None
    advice: str | None = None


class Environment(_Record):
    """What `validate` found."""

    created: str | None = None
    passed: bool
    checks: list[Check] = []
    machine: dict[str, Any] = {}
    packages: dict[str, str | None] = {}


class Site(_Record):
    """A partition's manifest without its episode digests."""

    source: str
    tasks: list[str] = []
    train_episodes: list[int] = []
    held_out_episodes: list[int] = []
    train_frames: int | None = None
    held_out_frames: int | None = None
    robot_type: str | None = None
    digest: str | None = None


class Origin(_Record):
    """The starting policy."""

    source: str
    digest: str | None = None


class PolicySize(_Record):
    """How large the policy is and how much of it trains and travels."""

    parameters: int | None = None
    trainable_parameters: int | None = None
    trainable_tensors: int | None = None
    trainable_bytes: int | None = None


class Git(_Record):
    """The project's revision when it ran."""

    revision: str | None = None
    dirty: bool = False


class Run(_Record):
    """A federated run as a whole; losses are means over sites."""

    run: str
    started: str | None = None
    ended: str | None = None
    wall_s: float | None = None
    params: dict[str, Any] = {}
    base: Origin
    sites: dict[str, Site]
    unseen: dict[str, Site] = {}
    policy: PolicySize = PolicySize()
    rounds: int
    stopped: str | None = None
    best_round: int | None = None
    best_held_out_loss: float | None = None
    last_held_out_loss: float | None = None
    start_held_out_loss: float | None = None
    resumed_at_rounds: list[int] = []
    versions: dict[str, str | None] = {}
    machine: dict[str, Any] = {}
    git: Git = Git()


class SiteRound(_Record):
    """One site's part in a round; round 0 has no training."""

    examples: int | None = None
    train_loss: float | None = None
    held_out_loss: float | None = None
    update_norm: float | None = None
    train_s: float | None = None
    evaluate_s: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None


class Round(_Record):
    """One round; round 0 is the starting model."""

    round: int
    train_loss: float | None = None
    held_out_loss: float | None = None
    learning_rate: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    round_s: float | None = None
    aggregate_s: float | None = None
    save_s: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    is_best: bool = False
    digest: str | None = None
    left_out: dict[str, str] = {}
    sites: dict[str, SiteRound] = {}


class Event(_Record):
    """One line of the run's diary."""

    time: str | None = None
    event: str
    round: int | None = None
    site: str | None = None
    message: str | None = None


class Pair[T](_Record):
    """The base and the global model, measured alike."""

    base: T
    trained: T = Field(alias="global")


class TaskScore(_Record):
    """A model on a task: loss and error on held-out frames, closed-loop successes and their scenes."""

    held_out_loss: float | None = None
    action_error_deg: float | None = None
    action_error_deg_by_joint: dict[str, float | None] = {}
    episode_errors_deg: dict[str, float] = {}
    held_out_frames: int | None = None
    rollouts: int = 0
    successes: int = 0
    success_rate: float | None = None
    success_low: float | None = None
    success_high: float | None = None
    mean_steps: float | None = None
    outcomes: dict[str, bool] = {}


class Task(Pair[TaskScore]):
    """A task and both models' scores on it."""

    role: Literal["site", "unseen"]
    sentence: str = ""
    source: str | None = None
    no_rollouts: str | None = None  # why, where there are none


class Overall(_Record):
    """A model as `evaluate` summed it up: means over the sites, successes over all tasks."""

    held_out_loss: float | None = None
    action_error_deg: float | None = None
    success_rate_seen: float | None = None
    success_rate_unseen: float | None = None
    successes: int | None = None
    rollouts: int | None = None


class SafetyCheck(_Record):
    """One rule for the actions; `worst` may not be above `limit`."""

    name: str
    unit: str = ""
    limit: float | None = None
    worst: float | None = None
    passed: bool
    joint: str | None = None


class Safety(_Record):
    """A model's safety check."""

    passed: bool
    checks: list[SafetyCheck] = []


class ModelFile(_Record):
    """Which checkpoint was judged."""

    path: str | None = None
    digest: str | None = None
    round: int | None = None


class Video(_Record):
    """One filmed rollout."""

    task: str
    model: Literal["base", "global"]
    seed: int
    success: bool
    file: str


class Evaluation(_Record):
    """What `evaluate` found."""

    models: Pair[ModelFile]
    tasks: dict[str, Task]
    overall: Pair[Overall]
    safety: Pair[Safety]
    videos: list[Video] = []

    def with_role(self, role: Literal["site", "unseen"]) -> dict[str, Task]:
        """The tasks that sites trained on, or those that none did."""
        return {name: task for name, task in self.tasks.items() if task.role == role}


class BenchmarkRow(_Record):
    """One measured figure."""

    name: str
    value: float | None = None
    unit: str = ""
    p50: float | None = None
    p95: float | None = None
    detail: str | None = None


class Benchmark(_Record):
    """What `benchmark` measured."""

    created: str | None = None
    machine: dict[str, Any] = {}
    rows: list[BenchmarkRow] = []
