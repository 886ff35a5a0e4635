"""run.json, rounds.jsonl and events.jsonl: what a federation tells of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from zk0.records.base import Bytes, Checkpoint, Digest, Loss, Machine, Origin, Record, Seconds, Time


class Site(Record):
    """A partition's manifest without its episodes' digests; see :class:`zk0.data.manifest.Manifest`."""

    source: str
    site: str | None = None
    partition: int | None = None
    role: str | None = None
    revision: str | None = None
    repo_id: str | None = None
    root: str | None = None
    robot_type: str | None = None
    fps: Annotated[int | None, Field(description="Frames a second")] = None
    every: Annotated[int | None, Field(description="One recorded frame in so many is taken")] = None
    cameras: tuple[str, ...] = ()
    camera_sources: dict[str, str] = Field(default_factory=dict)
    image_shapes: dict[str, list[int]] = Field(default_factory=dict, description="Channels, height and width, pixels")
    convention: str | None = None
    joint_map: Any = None
    joints: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    train_episodes: tuple[int, ...] = ()
    held_out_episodes: tuple[int, ...] = ()
    train_frames: int | None = None
    held_out_frames: int | None = None
    digest: Digest = None


class PolicySize(Record):
    """How large the policy is and how much of it trains and travels."""

    parameters: int | None = None
    trainable_parameters: int | None = None
    trainable_tensors: int | None = None
    trainable_bytes: Bytes = None


class Git(Record):
    """The project's revision when it ran."""

    revision: str | None = None
    dirty: bool = False


class Checkpoints(Record):
    """The two global models that a run leaves."""

    best: Checkpoint
    last: Checkpoint


class Privacy(Record):
    """What was spent after a run's last round."""

    mode: str
    unit: Annotated[str, Field(description="What is protected: a site, with all of its recordings")] = "site"
    epsilon: float | None = None
    delta: float | None = None


class Run(Record):
    """A federated run as a whole; losses are means over sites."""

    run: Annotated[str, Field(description="Digest of all that decides the global model")]
    started: Time
    ended: Time
    wall_s: Seconds = None
    params: dict[str, Any]
    base: Origin
    sites: dict[str, Site]
    unseen: dict[str, Site] = Field(default_factory=dict)
    policy: PolicySize = PolicySize()
    rounds: Annotated[int, Field(description="Rounds completed")]
    stopped: Annotated[str | None, Field(description="Why it ended before the last round; null where it did not")] = (
        None
    )
    best_round: Annotated[int, Field(description="The first of those with the lowest held-out loss; 0 = the start")]
    best_held_out_loss: Loss = None
    last_held_out_loss: Loss = None
    start_held_out_loss: Loss = None
    resumed_at_rounds: tuple[int, ...] = ()
    stats: dict[str, dict[str, list[float]]] = Field(
        default_factory=dict,
        description="Feature to mean and standard deviation, a number a joint: degrees, of the gripper percent",
    )
    limits: dict[str, list[float]] = Field(
        default_factory=dict,
        description="Joint ranges and largest steps of all recordings, a number a joint: degrees or percent",
    )
    statistics: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Sites left out of the statistics, or bounded in them, and why"
    )
    versions: dict[str, str | None] = Field(default_factory=dict)
    machine: Machine = Machine()
    git: Git
    checkpoints: Checkpoints
    privacy: Privacy | None = None


class SiteRound(Record):
    """One site's part in a round; round 0 has no training, and a site that was not drawn neither."""

    examples: Annotated[int | None, Field(description="Training examples seen: local steps times batch")] = None
    train_loss: Loss = None
    held_out_loss: Loss = None
    learning_rate: float | None = None
    update_norm: Annotated[float | None, Field(description="L2 norm of the update")] = None
    train_s: Seconds = None
    evaluate_s: Seconds = None
    bytes_up: Bytes = None
    bytes_down: Bytes = None
    epsilon: Annotated[float | None, Field(description="Spent by the site so far, by its own account")] = None


class Round(Record):
    """One round; round 0 is the starting model."""

    round: int
    train_loss: Loss = None
    held_out_loss: Annotated[float, Field(description="Mean over the sites; as :data:`Loss`")]
    learning_rate: Annotated[float | None, Field(description="Of the sites' optimisers")] = None
    server_learning_rate: float | None = None
    proximal_mu: float | None = None
    bytes_up: Annotated[int, Field(description="Bytes, of all sites")] = 0
    bytes_down: Annotated[int, Field(description="Bytes, of all sites")] = 0
    round_s: Seconds = None
    aggregate_s: Seconds = None
    save_s: Seconds = None
    cpu_s: Annotated[float | None, Field(description="Processor seconds, of the process that makes the rounds")] = None
    memory_bytes: Annotated[int | None, Field(description="Bytes that it held, resident, as the round ended")] = None
    digest: Annotated[str | None, Field(description="Of the global model's trainable tensors")] = None
    left_out: dict[str, str] = Field(default_factory=dict, description="Site to why it does not count in this round")
    bounded: dict[str, str] = Field(default_factory=dict, description="Site to what of its numbers counts for less")
    sites: dict[str, SiteRound] = Field(default_factory=dict)
    clip_norm: Annotated[float | None, Field(description="L2 norm to which updates were clipped")] = None
    noise_deviation: Annotated[float | None, Field(description="Of the noise on the mean update, each number")] = None
    epsilon: Annotated[float | None, Field(description="Privacy spent so far")] = None
    delta: float | None = None
    is_best: Annotated[bool, Field(description="Whether it was the best so far")] = False


class Event(Record):
    """One line of the journal of a run, or of a site: what happened when, in words, and the figures that go with it."""

    time: Time | None = None
    event: str
    round: int | None = None
    site: str | None = None
    message: str | None = None
    run: Annotated[str | None, Field(description="In a site's journal: the run that asked")] = None
    seconds: Seconds = None
    train_s: Seconds = None
    evaluate_s: Seconds = None
    train_loss: Loss = None
    held_out_loss: Loss = None
    learning_rate: float | None = None
    server_learning_rate: float | None = None
    proximal_mu: float | None = None
    examples: int | None = None
    frames: int | None = None
    epsilon: float | None = None
    lacks: Annotated[str | None, Field(description="Digest of the model that a site asks for")] = None
    bytes: Bytes = None
    bytes_up: Bytes = None
    bytes_down: Bytes = None
    tensors: int | None = None


_TRAINED = ("train_loss", "learning_rate", "server_learning_rate", "proximal_mu", "round_s", "aggregate_s")


def round_row(
    number: int,
    held_out_loss: float,
    digest: str,
    sites: dict[str, SiteRound],
    left_out: dict[str, str],
    bounded: dict[str, str],
    **figures: float,
) -> Round:
    """A round's row; what of its training is not among the further figures is null, as in round 0."""
    return Round(
        round=number,
        held_out_loss=held_out_loss,
        bytes_up=sum(site.bytes_up or 0 for site in sites.values()),
        bytes_down=sum(site.bytes_down or 0 for site in sites.values()),
        digest=digest,
        left_out=left_out,
        bounded=bounded,
        sites=sites,
        **{**dict.fromkeys(_TRAINED), **figures},
    )


def both_parts(trained: Mapping[str, float], judged: Mapping[str, float]) -> SiteRound:
    """A site's record of a round, of its figures by name; what it was sent to train and to judge counts together.

    Either part may be empty: the site was not drawn, or was left out.
    """
    down = trained.get("bytes_down", 0) + judged.get("bytes_down", 0)
    return SiteRound.model_validate({"bytes_up": 0, **trained, **judged, "bytes_down": down})


def rows_saved(rows: Iterable[Round], save_s: Mapping[int, float]) -> list[Round]:
    """Rounds as they are told: with whether they were the best so far, and the seconds that saving took."""
    marked, best = [], float("inf")
    for row in rows:
        is_best = row.round > 0 and row.held_out_loss < best
        best = row.held_out_loss if is_best else best
        marked.append(row.model_copy(update={"is_best": is_best, "save_s": save_s.get(row.round)}))
    return marked


CURVES = "round,site,held_out_loss,train_loss\n"


def curves(rows: Iterable[Round]) -> str:
    """Losses by round and site as CSV, below the columns' names in :data:`CURVES`, for `dvc plots`."""
    lines = []
    for row in rows:
        sites: dict[str, Round | SiteRound] = {"all sites": row, **row.sites}
        for site, told in sites.items():
            losses = ("" if loss is None else str(loss) for loss in (told.held_out_loss, told.train_loss))
            lines.append(",".join((str(row.round), site, *losses)) + "\n")
    return "".join(lines)
