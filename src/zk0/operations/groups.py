"""Which services there are: groups that deployment.yaml names, and the processes that each is."""

from __future__ import annotations

from zk0.errors import StageError
from zk0.network.config import Group
from zk0.words import nearest_hint

# In the order in which they are started; they are stopped the other way round.
GROUPS: dict[Group, tuple[str, ...]] = {
    "mlflow": ("mlflow",),
    "prefect": ("server", "worker"),
    "federation": ("superlink", "superexec", "gateway"),
    "monitor": ("monitor",),
}

# Whatever is of no use without another is started anew with it.
DEPENDENTS = {"superlink": ("superexec",)}


def service_names() -> tuple[str, ...]:
    """All that deployment.yaml can have started, in the order in which they are started."""
    return tuple(name for names in GROUPS.values() for name in names)


def group_of(name: str) -> Group:
    """The group that a service or a group's name belongs to.

    Raises:
        StageError: There is no such service; names the nearest.
    """
    for group, names in GROUPS.items():
        if name == group or name in names:
            return group
    raise StageError(f"there is no service '{name}'{nearest_hint(name, (*GROUPS, *service_names()))}")


def members(name: str) -> tuple[str, ...]:
    """The services that a name stands for: one, or those of a group.

    Raises:
        StageError: There is no such service; names the nearest.
    """
    group = group_of(name)
    return GROUPS[group] if name == group else (name,)
