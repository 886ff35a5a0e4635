"""What all records have in common, and the units that their figures are in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Bytes = Annotated[int | None, Field(description="Bytes")]
Seconds = Annotated[float | None, Field(description="Seconds")]
Loss = Annotated[float | None, Field(description="Mean squared error of the flow, in the model's own normalised units")]
Degrees = Annotated[float | None, Field(description="Degrees; of the gripper, percent")]
Rate = Annotated[float | None, Field(description="Share of rollouts, 0 to 1")]
Time = Annotated[str, Field(description="ISO 8601, in UTC")]
Digest = Annotated[str | None, Field(description="Hexadecimal digest of a content")]


class Record(BaseModel):
    """Something that a run wrote: frozen, and with whatever a later version writes beside what is described.

    What is not written on purpose is absent from the file, not null: a run without privacy has no ``privacy``.
    """

    model_config = ConfigDict(frozen=True, extra="allow", validate_by_name=True, validate_by_alias=True)

    def content(self) -> dict[str, Any]:
        """As JSON takes it, with what was given and nothing else."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Gpu(Record):
    """A graphics processor, as its driver names it."""

    name: str


class Machine(Record):
    """The machine that measured."""

    platform: str | None = None
    cpu: str | None = None
    cores: int | None = None
    memory_bytes: Bytes = None
    disk_free_bytes: Bytes = None
    gpus: tuple[Gpu, ...] = ()
    python: str | None = None


class Origin(Record):
    """Where a policy came from, so that it can be found again."""

    source: str
    digest: Digest = None


class Checkpoint(Record):
    """A checkpoint's folder, below the project's, and the round whose model it holds."""

    path: str
    digest: Annotated[str, Field(description="Of the folder")]
    round: int | None = None
