"""Closed-loop rollouts: the policy drives the simulated arm, images rendered only when it looks; and their videos.

The arm is driven as one is that LeRobot drives: within a longest step, see :mod:`zk0.evaluation.driving`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch

from zk0.data.frames import IMAGES, STATE
from zk0.data.sim.rooms import PLAIN, Room, room_of
from zk0.data.sim.simulation import Simulation
from zk0.data.sim.tasks import SimTask, find_task
from zk0.evaluation.driving import cut, quietly
from zk0.evaluation.limits import Limits
from zk0.params import EvaluationParams
from zk0.policy import flow
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import observed
from zk0.seeding import torch_rng
from zk0.sources import Source

VIDEO_SIZE = 192
_HOLD_LAST_FRAMES = 8


@dataclass(frozen=True)
class Rollout:
    """One closed-loop episode.

    Attributes:
        seed: Seed of the scene.
        success: Whether the task was done within the step limit.
        steps: Control steps taken.
        states: (steps + 1, 6) joint positions, LeRobot's units.
        actions: (steps, 6) joint targets the policy asked for.
        sent: (steps, 6) those that the arm was given: the same, but where they were too far from where it was.
        frames: (steps + 1, H, W, 3) uint8 from the top camera, or None when not filmed.
    """

    seed: int
    success: bool
    steps: int
    states: np.ndarray
    actions: np.ndarray
    sent: np.ndarray
    frames: np.ndarray | None

    @property
    def cut(self) -> bool:
        """Whether the arm was ever given another target than the policy asked for."""
        return not np.array_equal(self.actions, self.sent)


class _Run:
    """A closed-loop episode in progress."""

    def __init__(self, sim: Simulation, seed: int, filmed: bool, longest: Mapping[str, float] | None) -> None:
        sim.reset(seed)
        self.sim, self.seed, self.filmed, self.longest = sim, seed, filmed, longest
        self.states, self.actions, self.sent = [sim.state()], list[np.ndarray](), list[np.ndarray]()
        self.frames = [sim.render(size=VIDEO_SIZE)] if filmed else []

    def step(self, action: np.ndarray) -> None:
        sent = action if self.longest is None else cut(action, self.states[-1], self.longest)
        self.sim.step(sent)
        self.actions.append(action)
        self.sent.append(sent)
        self.states.append(self.sim.state())
        if self.filmed:
            self.frames.append(self.sim.render(size=VIDEO_SIZE))

    def result(self) -> Rollout:
        return Rollout(
            seed=self.seed,
            success=bool(self.sim.success),
            steps=len(self.actions),
            states=np.stack(self.states),
            actions=np.stack(self.actions),
            sent=np.stack(self.sent),
            frames=np.stack(self.frames) if self.filmed else None,
        )


def roll_out(
    loaded: LoadedPolicy,
    task: SimTask,
    seeds: Sequence[int],
    *,
    rooms: Sequence[Room] = (PLAIN,),
    longest: Mapping[str, float] | None = None,
    max_steps: int = 40,
    actions_per_look: int = 4,
    side_by_side: int = 10,
    filmed: int = 0,
) -> list[Rollout]:
    """Run one episode per seed.

    Episodes advance side by side so that one forward pass serves several. The policy's noise
    belongs to seed and look, so results do not depend on ``side_by_side`` (up to rounding), and two
    policies meet the same scenes and the same noise: their results are paired.

    Args:
        loaded: Policy and processors.
        task: What to do.
        seeds: Seeds of the scenes.
        rooms: Where the arm stands, dealt to the seeds in turn.
        longest: Joint to the longest step that the arm takes, degrees (gripper: percent); None = any.
        max_steps: Control steps after which an episode has failed.
        actions_per_look: Actions executed of each predicted chunk before looking again.
        side_by_side: Episodes in flight.
        filmed: How many of the first episodes to record as video.

    Returns:
        One result per seed, in their order.
    """
    image_size = loaded.policy.config.image_features[loaded.cameras[0]].shape[-1]
    results: list[Rollout] = []
    with closing(Simulation(task, image_size)) as first, quietly():
        for start in range(0, len(seeds), side_by_side):
            # A room's renderer takes memory: of many rooms, those of one batch are open at a time.
            share, runs = first if len(rooms) == 1 else Simulation(task, image_size), list[_Run]()
            for index, seed in enumerate(seeds[start : start + side_by_side], start):
                sim = Simulation(task, image_size, share=share, room=rooms[index % len(rooms)])
                runs.append(_Run(sim, seed, index < filmed, longest))
            looks = 0
            while active := [r for r in runs if not r.sim.success and len(r.actions) < max_steps]:
                for run, chunk in zip(active, _act(loaded, active, looks), strict=True):
                    for action in chunk[:actions_per_look]:
                        if run.sim.success or len(run.actions) >= max_steps:
                            break
                        run.step(action)
                looks += 1
            results.extend(run.result() for run in runs)
            if share is not first:
                share.close()
    return results


@dataclass(frozen=True)
class Driven:
    """A model on the scenes of a task.

    Attributes:
        limited: As an arm drives it: within its longest step.
        raw: The same scenes without that limit, as the policy would have it.
    """

    limited: Sequence[Rollout] = ()
    raw: Sequence[Rollout] = ()


def drive(
    loaded: LoadedPolicy,
    source: str,
    settings: EvaluationParams,
    limits: Limits,
    scenes: Sequence[int],
    *,
    rooms: Sequence[Room] = (),
    side_by_side: int = 10,
    filmed: int = 0,
    raw: bool = True,
) -> Driven:
    """Closed-loop episodes of a source's task, with the arm's limit and, if asked for, without.

    None where there is no simulator. Where nothing was cut, both are one and the same episode. See :func:`roll_out`;
    the source's own room counts where no ``rooms`` are given.
    """
    parsed = Source.parse(source)
    if parsed.kind != "sim" or not scenes:
        return Driven()
    go = partial(
        roll_out,
        loaded,
        find_task(parsed.name),
        max_steps=settings.max_steps,
        actions_per_look=settings.actions_per_look,
        side_by_side=side_by_side,
    )
    rooms = rooms or (room_of(parsed.room),)
    limited = go(scenes, rooms=rooms, longest=limits.longest_steps(settings.step_factor), filmed=filmed)
    if not raw:
        return Driven(limited)
    uncut = {rollout.seed: rollout for rollout in limited if not rollout.cut}
    again = {seed: rooms[n % len(rooms)] for n, seed in enumerate(scenes) if seed not in uncut}
    uncut |= {rollout.seed: rollout for rollout in go(list(again), rooms=list(again.values()))}
    return Driven(limited, [uncut[seed] for seed in scenes])


def why_no_rollouts(source: str, rollouts: int) -> str | None:
    """Why :func:`drive` gives none, in words; None where it gives some.

    Args:
        source: As in params.
        rollouts: How many are asked for.
    """
    if Source.parse(source).kind != "sim":
        return "real recordings have no simulated scene"
    return None if rollouts else "evaluation.rollouts is 0"


def _act(loaded: LoadedPolicy, runs: Sequence[_Run], look: int) -> np.ndarray:
    """Predict a chunk for every run: (B, chunk, 6) float32 in LeRobot's units."""
    images = [run.sim.images() for run in runs]
    batch = {
        STATE: torch.from_numpy(np.stack([run.states[-1] for run in runs])),
        "task": [run.sim.sentence for run in runs],
    }
    for camera in loaded.cameras:
        pixels = np.stack([image[camera.removeprefix(f"{IMAGES}.")] for image in images])
        batch[camera] = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0
    config = loaded.policy.config
    noise = torch.stack(
        [
            torch.randn(config.chunk_size, config.max_action_dim, generator=torch_rng(run.seed, "rollout", look))
            for run in runs
        ]
    )
    actions = flow.predict(loaded.policy, observed(loaded, batch), noise.to(config.device))
    chunks: np.ndarray = loaded.postprocess(actions).numpy()
    return chunks


def write_video(frames: np.ndarray, path: Path, fps: int) -> None:
    """Write (T, H, W, 3) uint8 frames; the last one is held for a moment."""
    av.logging.set_libav_level(av.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=fps, options={"crf": "26", "preset": "slow"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in [*frames, *[frames[-1]] * _HOLD_LAST_FRAMES]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
