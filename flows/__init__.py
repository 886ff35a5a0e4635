"""Prefect flows, one file per documented workflow, and benchmark."""

from zk0 import quiet

quiet.switch_off()
