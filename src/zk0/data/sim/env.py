"""The embedded SO-101 as a gymnasium environment, and as one of LeRobot's environment types.

Importing this module registers ``zk0_so101/TASK`` in gymnasium for every task (its room is an argument), and the type
``zk0_so101`` in LeRobot. LeRobot's own commands import it through the plugin ``lerobot_env_zk0``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from zk0.data.sim.expert import MAX_STEPS
from zk0.data.sim.rooms import room_of
from zk0.data.sim.simulation import CAMERAS, CONTROL_HZ, Simulation
from zk0.data.sim.tasks import SITES, TASKS, find_task
from zk0.so100 import JOINTS

ENV_TYPE = "zk0_so101"
RENDER_SIZE = 192  # of a video's frames, in pixels; what the policy sees may be smaller
_POSITION_LIMIT = 360.0  # joints give a little beyond their ranges; none gets near a full turn
_AGENT_POS = "agent_pos"


class So101Env(gym.Env[dict[str, Any], np.ndarray]):
    """One task of the embedded arm; one step is a control step of 0.1 s.

    Observations are ``{"pixels": {"top": I, "wrist": I}, "agent_pos": P}`` with I of shape
    (image_size, image_size, 3) uint8 and P of shape (6,) float32; actions are joint targets, (6,)
    float32. Positions and targets are in LeRobot's units: degrees, and percent for the gripper.
    Targets beyond a joint's range are clipped to it. The reward is 1 when the task is done, which
    ends the episode, and 0 before.

    Args:
        task: Name of a task of :data:`zk0.data.sim.tasks.TASKS`.
        image_size: Height and width of both camera images in pixels.
        max_steps: Control steps after which an episode is truncated.
        render_mode: ``rgb_array``, or None for an environment that is not looked at.
        room: Number of the room, as in ``sim:TASK@ROOM``; None is that of ``sim:TASK``.

    Raises:
        ValueError: No such task or room, or another render mode.

    Example:
        >>> env = gym.make("zk0_so101/push-red-cube-left", render_mode="rgb_array")
        >>> observation, info = env.reset(seed=7)
        >>> observation["pixels"]["wrist"].shape, info
        ((96, 96, 3), {'is_success': False})
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # type: ignore[misc]

    def __init__(
        self,
        task: str,
        image_size: int = 96,
        max_steps: int = MAX_STEPS,
        render_mode: str | None = None,
        room: int | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be rgb_array or None (got '{render_mode}')")
        self.task = task
        self.render_mode = render_mode
        self.sim = Simulation(find_task(task), image_size, room=room_of(room))
        self.sim.reset(seed=0)  # the joints' ranges are known once the model is built
        # The names by which LeRobot asks for the instruction and for the length of an episode.
        self.task_description = self.sim.sentence
        self._max_episode_steps = max_steps
        self._steps = 0
        image = (image_size, image_size, 3)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict({camera: spaces.Box(0, 255, image, np.uint8) for camera in CAMERAS}),
                _AGENT_POS: spaces.Box(-_POSITION_LIMIT, _POSITION_LIMIT, (len(JOINTS),), np.float32),
            }
        )
        self.action_space = spaces.Box(self.sim.units.low, self.sim.units.high, dtype=np.float32)

    @override
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set up the scene of a seed, the same that recordings and rollouts have for it.

        Args:
            seed: Decides the scene; without one, the next of the last seed's sequence.
            options: Not used.
        """
        super().reset(seed=seed)
        self.sim.reset(int(self.np_random.integers(1 << 31)) if seed is None else seed)
        self.task_description = self.sim.sentence
        self._steps = 0
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Hold the joint targets for one control step."""
        self.sim.step(action)
        self._steps += 1
        success = self.sim.success
        truncated = not success and self._steps >= self._max_episode_steps
        return self._observation(), float(success), success, truncated, {"is_success": success}

    def render(self) -> np.ndarray | None:
        """The top camera's image, (192, 192, 3) uint8; None without a render mode."""
        return self.sim.render(size=RENDER_SIZE) if self.render_mode else None

    def close(self) -> None:
        """Release the GL contexts of the simulation."""
        self.sim.close()

    def _observation(self) -> dict[str, Any]:
        return {"pixels": self.sim.images(), _AGENT_POS: self.sim.state()}


@EnvConfig.register_subclass(ENV_TYPE)
@dataclass
class So101EnvConfig(EnvConfig):  # type: ignore[misc]
    """What ``--env.type=zk0_so101`` takes; policies get the keys that recordings have.

    Seeds from 100000 on show scenes that no recording has.

    Attributes:
        task: Name of a task of :data:`zk0.data.sim.tasks.TASKS`.
        fps: Control steps per second; the simulation has only one rate.
        episode_length: Control steps after which an episode has failed.
        image_size: Height and width of both camera images in pixels.
        room: Number of the room, as in ``sim:TASK@ROOM``; None is that of ``sim:TASK``.
    """

    task: str | None = SITES[0].name
    fps: int = CONTROL_HZ
    episode_length: int = MAX_STEPS
    image_size: int = 96
    room: int | None = None
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fps != CONTROL_HZ:
            raise ValueError(f"env.fps must be {CONTROL_HZ}, the simulation's rate (got {self.fps})")
        find_task(self.task or "")
        room_of(self.room)
        cameras = [f"{OBS_IMAGES}.{camera}" for camera in CAMERAS]
        image = PolicyFeature(FeatureType.VISUAL, (self.image_size, self.image_size, 3))
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (len(JOINTS),)),
            _AGENT_POS: PolicyFeature(FeatureType.STATE, (len(JOINTS),)),
            **dict.fromkeys(cameras, image),
        }
        self.features_map = {ACTION: ACTION, _AGENT_POS: OBS_STATE, **{camera: camera for camera in cameras}}

    @property
    def package_name(self) -> str:
        """The module whose import registers the environments."""
        return __name__

    @property
    def gym_id(self) -> str:
        """The task's id in gymnasium."""
        return f"{ENV_TYPE}/{self.task}"

    @property
    def gym_kwargs(self) -> dict[str, int | str | None]:
        """Arguments of :class:`So101Env` beyond its task."""
        kwargs = {"image_size": self.image_size, "max_steps": self.episode_length, "room": self.room}
        return kwargs | {"render_mode": "rgb_array"}


for _name in TASKS:
    gym.register(f"{ENV_TYPE}/{_name}", entry_point=f"{__name__}:So101Env", kwargs={"task": _name})
