"""Errors a person can mend: shown as their message, without a traceback."""

from __future__ import annotations


class StageError(RuntimeError):
    """A stage cannot go on; the message says what was wrong, what was expected and what to do."""


class DataError(StageError):
    """A dataset, a recording or a manifest is not what it must be."""
