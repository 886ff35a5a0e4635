"""Make zk0's environments and its checkpoints known to LeRobot's own commands.

    lerobot-eval --policy.path=checkpoints/best --env.type=zk0_so101 --env.task=push-red-cube-left \\
        --seed=100000 --eval.n_episodes=10 --eval.batch_size=1
"""

from zk0.data.sim.env import So101Env, So101EnvConfig
from zk0.policy import portable

portable.install()  # so that a checkpoint that carries its vision-language model loads from any path

__all__ = ["So101Env", "So101EnvConfig"]
