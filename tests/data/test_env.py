"""The simulated arm behind gymnasium's and LeRobot's interfaces."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import lerobot_env_zk0
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from lerobot.configs.policies import PreTrainedConfig
from lerobot.envs.configs import EnvConfig
from lerobot.envs.factory import make_env
from lerobot.envs.utils import close_envs, env_to_policy_features, preprocess_observation

from zk0.data.sim.env import So101Env, So101EnvConfig
from zk0.data.sim.expert import Expert
from zk0.data.sim.tasks import TASKS


@pytest.fixture
def env() -> Iterator[So101Env]:
    made = gym.make("zk0_so101/public-touch", render_mode="rgb_array")
    assert isinstance(made.unwrapped, So101Env)
    yield made.unwrapped
    made.close()


def test_gymnasiums_checker_accepts_it(env: So101Env) -> None:
    check_env(env)


def test_every_task_is_registered() -> None:
    assert {f"zk0_so101/{name}" for name in TASKS} <= set(gym.registry)


def test_same_seed_same_observation(env: So101Env) -> None:
    first, _ = env.reset(seed=5)
    other, _ = env.reset(seed=6)
    again, _ = env.reset(seed=5)

    assert data_equivalence(first, again, exact=True)
    assert not np.array_equal(first["agent_pos"], other["agent_pos"])
    assert not np.array_equal(first["pixels"]["top"], other["pixels"]["top"])


def test_without_a_seed_every_reset_is_another_scene(env: So101Env) -> None:
    env.reset(seed=5)
    places = []
    for _ in range(2):
        env.reset()
        places.append((env.sim.scene.x, env.sim.scene.y))

    assert places[0] != places[1]


def test_expert_succeeds_and_is_rewarded_once(env: So101Env) -> None:
    env.reset(seed=1)
    expert, rewards, terminated, info = Expert(env.sim), [], False, {}
    while not terminated:
        _, reward, terminated, truncated, info = env.step(expert.action())
        rewards.append(reward)
        assert not truncated

    assert info["is_success"] is True
    assert sum(rewards) == rewards[-1] == 1.0
    assert len(rewards) < env._max_episode_steps


def test_episode_without_success_is_truncated() -> None:
    env = So101Env("public-touch", image_size=16, max_steps=3)
    observation, _ = env.reset(seed=1)

    ends = [env.step(observation["agent_pos"])[2:] for _ in range(3)]
    env.close()

    assert [truncated for _, truncated, _ in ends] == [False, False, True]
    assert not any(terminated or info["is_success"] for terminated, _, info in ends)


def test_instruction_is_that_of_the_scene(env: So101Env) -> None:
    env.reset(seed=3)

    assert env.task_description == env.sim.sentence
    assert env.task_description.startswith("touch the ")


def test_frames_of_a_video_only_where_asked_for(env: So101Env) -> None:
    env.reset(seed=3)
    blind = So101Env("public-touch")

    frame = env.render()

    assert frame is not None and frame.shape == (192, 192, 3) and frame.dtype == np.uint8
    assert blind.render() is None
    with pytest.raises(ValueError, match="got 'human'"):
        So101Env("public-touch", render_mode="human")


def test_plugin_registers_the_type_with_lerobot() -> None:
    assert EnvConfig.get_choice_class("zk0_so101") is lerobot_env_zk0.So101EnvConfig is So101EnvConfig
    assert getattr(PreTrainedConfig, "_zk0_reads_bundled_vlm", False)


def test_policies_get_the_keys_of_recordings() -> None:
    features = env_to_policy_features(So101EnvConfig(image_size=64))

    assert {name: feature.shape for name, feature in features.items()} == {
        "action": (6,),
        "observation.state": (6,),
        "observation.images.top": (3, 64, 64),
        "observation.images.wrist": (3, 64, 64),
    }


def test_a_room_is_another_place_of_the_same_scene() -> None:
    config = So101EnvConfig(task="public-touch", image_size=32, room=3)
    shared, room = (gym.make("zk0_so101/public-touch", image_size=32, room=number).unwrapped for number in (None, 3))
    assert isinstance(shared, So101Env) and isinstance(room, So101Env)

    first, other = shared.reset(seed=5)[0], room.reset(seed=5)[0]
    shared.close(), room.close()

    assert config.gym_kwargs["room"] == 3
    assert (room.sim.scene.x, room.sim.sentence) == (shared.sim.scene.x, shared.sim.sentence)
    assert not np.array_equal(first["pixels"]["top"], other["pixels"]["top"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "public-tuch"}, "did you mean 'public-touch'"),
        ({"fps": 30}, "must be 10.*got 30"),
        ({"room": -1}, "got -1"),
    ],
)
def test_config_that_cannot_work_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        So101EnvConfig(**given)


def test_lerobot_builds_and_steps_it() -> None:
    envs = make_env(So101EnvConfig(task="public-touch", episode_length=2), n_envs=2)
    vector = envs["zk0_so101"][0]
    try:
        observation, _ = vector.reset(seed=[1, 2])
        batch = preprocess_observation(observation)
        steps = [vector.step(observation["agent_pos"]) for _ in range(2)]

        assert batch["observation.state"].shape == (2, 6)
        assert batch["observation.images.wrist"].shape == (2, 3, 96, 96)
        assert vector.call("_max_episode_steps") == (2, 2)
        assert all(sentence.startswith("touch the ") for sentence in vector.call("task_description"))
        assert steps[0][3].tolist() == [False, False] and steps[1][3].tolist() == [True, True]
        assert steps[1][4]["final_info"]["is_success"].tolist() == [False, False]
    finally:
        close_envs(envs)
