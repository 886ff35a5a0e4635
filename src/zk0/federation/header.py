"""The header that binds a message to run, round and site; apart from the protocol, since it needs no tensors."""

from __future__ import annotations

import json
from typing import Any

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ConfigDict

SUMMARY = "query.summary"
HEADER = "header"


class Header(BaseModel):
    """Goes with every message and reply, and binds it to run, round and site.

    Attributes:
        run: Config digest of the run.
        round: 0 before the first.
        partition: The site's index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    round: int
    partition: int


def write(content: RecordDict, header: Header, **values: Any) -> None:
    """Put a header and further plain values into a message's content."""
    content[HEADER] = ConfigRecord({"json": json.dumps({**header.model_dump(mode="json"), "values": values})})
