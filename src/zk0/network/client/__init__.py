"""Memberships: a robot owner's part in a federation, a folder ``memberships/NAME`` in which its services work.

A membership is a project in small, as a training is: its ``params.yaml`` names one site, and the pipeline's own stages
check, prepare and cache its data there. Nothing of torch, lerobot or Flower is imported here.
"""

from __future__ import annotations

from zk0.network.client.membership import (
    MEMBERSHIPS,
    Joining,
    Membership,
    find_membership,
    memberships,
    open_membership,
    removed_if_refused,
)

__all__ = [
    "MEMBERSHIPS",
    "Joining",
    "Membership",
    "find_membership",
    "memberships",
    "open_membership",
    "removed_if_refused",
]
