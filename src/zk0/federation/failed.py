"""A site's failure as the reply that tells of it, on every engine; light, so that it can be told without torch."""

from __future__ import annotations

from flwr.app import Error, Message

from zk0.words import printable, said

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
