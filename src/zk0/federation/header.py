"""The header that binds a message to run, round and site; apart from the protocol, since it needs no tensors."""

from __future__ import annotations

import json
from typing import Annotated, Any

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

SUMMARY = "query.summary"
HEADER = "header"
# A manifest of a hundred thousand episodes is 700 KB; read, it becomes some 30 times as much at most.
LONGEST_HEADER = 1 << 20


class WireError(ValueError):
    """A message's content is not what it must be; names the record or tensor."""


class Header(BaseModel):
    """Goes with every message and reply, and binds it to run, round and site.

    Attributes:
        run: Config digest of the run.
        round: 0 before the first.
        partition: The site's index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Annotated[str, Field(max_length=100)]
    round: Annotated[int, Field(ge=0, le=10**9)]
    partition: Annotated[int, Field(ge=-1, le=10**9)]


def write(content: RecordDict, header: Header, **values: Any) -> None:
    """Put a header and further plain values into a message's content."""
    content[HEADER] = ConfigRecord({"json": json.dumps({**header.model_dump(mode="json"), "values": values})})


def plain(content: RecordDict) -> dict[str, Any]:
    """A message's header and values, as plain values that nobody has looked at yet.

    Its length is bounded before anything is read, and its depth by the reader.

    Raises:
        WireError: There is none, or it is no table in JSON.
    """
    record = content.get(HEADER)
    text = record.get("json") if isinstance(record, ConfigRecord) else None
    if not isinstance(text, str):
        raise WireError("the message has no header")
    if len(text) > LONGEST_HEADER:
        raise WireError(f"the message's header has {len(text)} characters; at most {LONGEST_HEADER} were expected")
    try:
        fields = from_json(text.encode())
    except ValueError as error:
        raise WireError(f"the message's header is malformed: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("values"), dict):
        raise WireError("the message's header is malformed: a table with a table 'values' was expected")
    return fields
