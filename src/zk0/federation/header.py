"""The header that binds a message to run, round and site; apart from the protocol, since it needs no tensors."""

from __future__ import annotations

import json
from typing import Annotated, Any

from flwr.app import ConfigRecord, Error, Message, RecordDict
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from zk0.words import printable, said

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


ERROR_CODE = 100
# Of a reply that the server's own Grid makes in a site's stead: its reason is no word of the site's.
GRID_CODE = 101


def error_reply(message: Message, error: Exception) -> Message:
    """The reply to a message that could not be served."""
    return Message(Error(ERROR_CODE, printable(f"{type(error).__name__}: {error}")), reply_to=message)


def failure(reply: Message, site: str) -> str:
    """Why a site's error reply tells that it failed; in few words, and marked as the site's where they are its own."""
    reason = str(reply.error.reason or "it gave no reason")
    return printable(reason) if reply.error.code == GRID_CODE else said(site, reason)
