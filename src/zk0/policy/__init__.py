"""Build, load, save and serve SmolVLA."""

from zk0.policy import portable

portable.install()
