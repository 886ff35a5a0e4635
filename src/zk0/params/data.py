"""Whose demonstrations, and what they are taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from zk0.settings import Section
from zk0.so100 import ARM_JOINTS
from zk0.sources import Source
from zk0.words import check_site_name, nearest_hint

Convention = Literal["degrees", "normalised", "so100-old"]
Names = dict[str, str | None]  # a camera to the name the policy knows it by; None leaves it out


class PartitionParams(Section):
    """Split one source over many sites instead; then data.sites has one entry."""

    scheme: Literal["none", "equal", "sizes", "tasks", "by-task"] = "none"
    """How its episodes are dealt: none, equal, sizes (Dirichlet), tasks (Dirichlet), by-task."""
    sites: int = Field(4, ge=1)
    """How many sites to make."""
    alpha: float = Field(0.5, gt=0)
    """Dirichlet concentration; small = unequal."""


class DataParams(Section):
    """Whose demonstrations, and how they are split."""

    sites: dict[str, str] = Field(min_length=1)
    """Site name: source; sim:TASK, sim:TASK@ROOM, local:PATH, or hub:REPO@REVISION."""
    unseen: dict[str, str] = Field(default_factory=dict)
    """Tasks that no site has, for evaluation; same form ({} = none)."""
    cameras: dict[str, Names | str | None] = Field(default_factory=dict)
    """Camera of the data: its name for the policy; {SITE: {...}} for one site, null drops one."""
    missing_cameras: Literal["refuse", "empty"] = "refuse"
    """A site without one of the policy's cameras: refuse, or empty (hide it from the policy)."""
    every: dict[str, int] = Field(default_factory=dict)
    """SITE: n takes one frame in n of a site that records n times fps ({} = all frames)."""
    conventions: dict[str, Convention] = Field(default_factory=dict)
    """SITE: degrees, normalised or so100-old, as its joint values are written ({} = degrees)."""
    calibrations: dict[str, str | dict[str, float]] = Field(default_factory=dict)
    """SITE: LeRobot's calibration file of a normalised site's arm, or measured ({} = none)."""
    leave_out: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """SITE: [episodes] that neither train nor judge; see `zk0 data check` ({} = none)."""
    unfit: Literal["refuse", "leave-out"] = "refuse"
    """A site whose data is not fit: refuse, or leave-out (go on without it; see min_replies)."""
    partition: PartitionParams = PartitionParams()
    """Split one source over many sites instead; then data.sites has one entry."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of each site's episodes kept for evaluation."""
    episodes: int = Field(30, ge=2)
    """Demonstrations recorded per sim: source."""
    noise: float = Field(0.25, ge=0, le=1)
    """Disturbance while recording, share of the expert's largest step (0 = none)."""
    fps: int = Field(10, ge=1)
    """Frames per second every source must have, or a whole multiple: see every."""
    decoded_limit_bytes: int = Field(2_000_000_000, ge=0)
    """Keep a site's images decoded in memory up to this size (0 = decode each time)."""

    @field_validator("sites", "unseen")
    @classmethod
    def _sources_parse(cls, sources: dict[str, str]) -> dict[str, str]:
        for name, text in sources.items():
            check_site_name(name)
            Source.parse(text)
        return sources

    @field_validator("every")
    @classmethod
    def _every_counts_from_one(cls, every: dict[str, int]) -> dict[str, int]:
        for name, count in every.items():
            if count < 1:
                raise ValueError(f"every '{name}' is {count}; it takes every n-th frame, so it must be 1 or more")
        return every

    @field_validator("leave_out")
    @classmethod
    def _episodes_are_numbers(cls, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        for name, episodes in given.items():
            if wrong := [episode for episode in episodes if episode < 0]:
                raise ValueError(f"leave_out '{name}' names episode {wrong[0]}; episodes are numbered from 0")
        return {name: tuple(sorted(set(episodes))) for name, episodes in given.items()}

    @field_validator("calibrations")
    @classmethod
    def _ranges_are_of_joints(cls, given: dict[str, str | dict[str, float]]) -> dict[str, str | dict[str, float]]:
        for name, ranges in given.items():
            if isinstance(ranges, str):
                continue
            if strange := sorted(set(ranges) - set(ARM_JOINTS)):
                hint = nearest_hint(strange[0], ARM_JOINTS)
                raise ValueError(f"calibrations '{name}' has a range for '{strange[0]}'{hint}")
            if missing := [joint for joint in ARM_JOINTS if joint not in ranges]:
                raise ValueError(f"calibrations '{name}' has no range for {', '.join(missing)}")
            if wrong := {joint: degrees for joint, degrees in ranges.items() if not 0 < degrees <= 360}:
                raise ValueError(f"calibrations '{name}': a range is above 0 and up to 360 degrees, not {wrong}")
        return given

    @model_validator(mode="after")
    def _settings_are_of_sources(self) -> DataParams:
        """What is said of one source must name one that there is."""
        known = [*self.sites, *self.unseen]
        of_sites = {name: names for name, names in self.cameras.items() if isinstance(names, dict)}
        settings: dict[str, Mapping[str, object]] = {
            "cameras": of_sites,
            "every": self.every,
            "conventions": self.conventions,
            "calibrations": self.calibrations,
            "leave_out": self.leave_out,
        }
        for setting, of_source in settings.items():
            if strange := sorted(set(of_source) - set(known)):
                raise ValueError(
                    f"{setting} names '{strange[0]}', which is neither a site nor unseen"
                    f"{nearest_hint(strange[0], known)}"
                )
        for name in self.calibrations:
            if self.conventions.get(name) != "normalised":
                raise ValueError(
                    f"calibrations '{name}' serves to turn normalised joint values into degrees; say conventions: "
                    f"{{{name}: normalised}} as well"
                )
        return self

    def camera_names(self, name: str) -> Names:
        """What a source's cameras are called by the policy: what is said of all sources, then what of this one."""
        of_all = {camera: known for camera, known in self.cameras.items() if not isinstance(known, dict)}
        own = self.cameras.get(name)
        return of_all | (own if isinstance(own, dict) else {})

    @model_validator(mode="after")
    def _one_source_when_partitioned(self) -> DataParams:
        if self.partition.scheme != "none" and len(self.sites) != 1:
            raise ValueError(
                f"partition.scheme '{self.partition.scheme}' splits one source, but sites names {len(self.sites)}"
            )
        if overlap := set(self.sites) & set(self.unseen):
            raise ValueError(f"{', '.join(sorted(overlap))} cannot be both a site and unseen")
        return self
