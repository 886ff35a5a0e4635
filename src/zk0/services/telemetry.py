"""What a service tells programs: its log as lines of JSON with time, level and facts, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, start_http_server

from zk0.errors import StageError

# For uvicorn's `--log-config`: the same lines from servers that are not ours, without one for each request.
UVICORN_JSON = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": f"{__name__}.JsonLines"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {"uvicorn.access": {"level": "WARNING"}},
}


class JsonLines(logging.Formatter):
    """One JSON object a record; of our own, ``extra={"line": {...}}`` is its content."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON, without its newline."""
        line: dict[str, object] | None = getattr(record, "line", None)
        if line is None:  # of a library
            line = {"event": "log", "logger": record.name, "message": record.getMessage()[:2000]}
            if record.exc_info and record.exc_info[0]:
                line["error"] = f"{record.exc_info[0].__name__}: {record.exc_info[1]}"
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": when, "level": record.levelname.lower(), **line}, default=str)


def log_as_json(*loggers: logging.Logger) -> None:
    """Let this process's log be lines of JSON on the error output.

    Args:
        loggers: Those that tell of more than warnings.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for logger in loggers:
        logger.setLevel(logging.INFO)


@contextmanager
def metrics_served(registry: CollectorRegistry, port: int, taken: str) -> Iterator[None]:
    """Answer Prometheus on a port of loopback within the block.

    Args:
        registry: What it is told.
        port: Which.
        taken: What to say where another has the port, with places for ``port`` and ``why``.

    Raises:
        StageError: Another has it.
    """
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise StageError(taken.format(port=port, why=error.strerror)) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
