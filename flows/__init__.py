"""Prefect flows, one file per documented workflow, and benchmark."""

from zk0 import runtime_env

runtime_env.switch_off()
