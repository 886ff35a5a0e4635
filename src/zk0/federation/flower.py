"""What zk0 uses of Flower beyond its public API, in one place: an upgrade of Flower is read against this file alone.

Public are ``flwr.app``, ``flwr.clientapp``, ``flwr.serverapp`` and ``flwr.simulation``. Everything else may be renamed
with any release, which is why flwr is pinned. A name is looked up when it is first asked for: much of Flower takes a
second or more to import, and a process is started for every message.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.cli.build import build_fab_from_disk as build_fab_from_disk
    from flwr.common.constant import ACCESS_TOKEN_KEY as ACCESS_TOKEN_KEY
    from flwr.common.constant import NOOP_ACCOUNT_NAME as NOOP_ACCOUNT_NAME
    from flwr.common.constant import NOOP_FLWR_AID as NOOP_FLWR_AID
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE as SYSTEM_TIME_TOLERANCE
    from flwr.common.constant import TIMESTAMP_HEADER as TIMESTAMP_HEADER
    from flwr.common.constant import TIMESTAMP_TOLERANCE as TIMESTAMP_TOLERANCE
    from flwr.common.constant import ErrorCode as ErrorCode
    from flwr.common.constant import Status as Status
    from flwr.common.constant import SubStatus as SubStatus
    from flwr.common.serde import fab_to_proto as fab_to_proto
    from flwr.common.serde import message_from_proto as message_from_proto
    from flwr.common.serde import message_to_proto as message_to_proto
    from flwr.common.serde import user_config_to_proto as user_config_to_proto
    from flwr.proto import control_pb2 as control_pb2
    from flwr.proto import fleet_pb2 as fleet_pb2
    from flwr.proto import message_pb2 as message_pb2
    from flwr.proto import runtime_pb2 as runtime_pb2
    from flwr.supercore.auth.typing import AccountAuthCredentials as AccountAuthCredentials
    from flwr.supercore.auth.typing import AccountAuthLoginDetails as AccountAuthLoginDetails
    from flwr.supercore.auth.typing import AccountInfo as AccountInfo
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER as FLEET_HTTP_PUBLIC_KEY_HEADER
    from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER as FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.constant import HEAD_BODY_DIVIDER as HEAD_BODY_DIVIDER
    from flwr.supercore.constant import TASK_TYPE_TO_APPIO_API_ADDRESS_ARG as TASK_TYPE_TO_APPIO_API_ADDRESS_ARG
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND as TASK_TYPE_TO_COMMAND
    from flwr.supercore.constant import NodeStatus as NodeStatus
    from flwr.supercore.control import ControlHttpClient as ControlHttpClient
    from flwr.supercore.fab import Fab as Fab
    from flwr.supercore.inflatable import inflatable_object as inflatable_object
    from flwr.supercore.inflatable import inflatable_utils as inflatable_utils
    from flwr.supercore.interceptors.http.runtime_version import (
        RuntimeVersionHttpInterceptor as RuntimeVersionHttpInterceptor,
    )
    from flwr.supercore.logger import FLOWER_LOGGER as FLOWER_LOGGER
    from flwr.supercore.protobuf.client import ProtobufCall as ProtobufCall
    from flwr.supercore.protobuf.client import ProtobufRequestContext as ProtobufRequestContext
    from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata as RuntimeVersionMetadata
    from flwr.supercore.superexec.executor import ExecutionSpec as ExecutionSpec
    from flwr.supercore.superexec.executor import LaunchResult as LaunchResult
    from flwr.supercore.superexec.executor import SubprocessExecutor as SubprocessExecutor
    from flwr.supercore.task_identity import TaskIdentity as TaskIdentity
    from flwr.superlink.auth_plugin import ControlAuthnPlugin as ControlAuthnPlugin
    from flwr.superlink.config_loader import SuperLinkLifespanConfig as SuperLinkLifespanConfig
    from flwr.superlink.grid import HttpGrid as HttpGrid
    from flwr.supernode.fleet_http_client import FleetHttpClient as FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor as NodeAuthHttpInterceptor
else:
    _MODULES = {
        "flwr.cli.build": "build_fab_from_disk",
        "flwr.common.constant": "ACCESS_TOKEN_KEY NOOP_ACCOUNT_NAME NOOP_FLWR_AID SYSTEM_TIME_TOLERANCE "
        "TIMESTAMP_HEADER TIMESTAMP_TOLERANCE ErrorCode Status SubStatus",
        "flwr.common.serde": "fab_to_proto message_from_proto message_to_proto user_config_to_proto",
        "flwr.supercore.auth.typing": "AccountAuthCredentials AccountAuthLoginDetails AccountInfo",
        "flwr.supercore.constant": "FLEET_HTTP_PUBLIC_KEY_HEADER FLEET_HTTP_SIGNATURE_HEADER HEAD_BODY_DIVIDER "
        "TASK_TYPE_TO_APPIO_API_ADDRESS_ARG TASK_TYPE_TO_COMMAND NodeStatus",
        "flwr.supercore.control": "ControlHttpClient",
        "flwr.supercore.fab": "Fab",
        "flwr.supercore.interceptors.http.runtime_version": "RuntimeVersionHttpInterceptor",
        "flwr.supercore.logger": "FLOWER_LOGGER",
        "flwr.supercore.protobuf.client": "ProtobufCall ProtobufRequestContext",
        "flwr.supercore.runtime_version_compatibility": "RuntimeVersionMetadata",
        "flwr.supercore.superexec.executor": "ExecutionSpec LaunchResult SubprocessExecutor",
        "flwr.supercore.task_identity": "TaskIdentity",
        "flwr.superlink.auth_plugin": "ControlAuthnPlugin",
        "flwr.superlink.config_loader": "SuperLinkLifespanConfig",
        "flwr.superlink.grid": "HttpGrid",
        "flwr.supernode.fleet_http_client": "FleetHttpClient",
        "flwr.supernode.node_auth_http_interceptor": "NodeAuthHttpInterceptor",
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}
    _WHOLE = {name: f"flwr.proto.{name}" for name in ("control_pb2", "fleet_pb2", "message_pb2", "runtime_pb2")} | {
        name: f"flwr.supercore.inflatable.{name}" for name in ("inflatable_object", "inflatable_utils")
    }

    def __getattr__(name: str) -> Any:
        if name in _WHOLE:
            return import_module(_WHOLE[name])
        if name not in _MODULE_OF:
            raise AttributeError(f"{__name__} has no '{name}'")
        return getattr(import_module(_MODULE_OF[name]), name)


def runtime_client(grid: HttpGrid) -> Any:
    """The client of a SuperLink's Runtime API that Flower's Grid has, with a method for each of its calls."""
    return grid._runtime_client


def superlink_config() -> SuperLinkLifespanConfig:
    """The options of `flower-superlink` in ``sys.argv``, parsed and checked by Flower."""
    parse: Callable[[], SuperLinkLifespanConfig]
    parse = import_module("flwr.superlink.cli.flower_superlink")._parse_superlink_lifespan_config
    return parse()


def steady_database() -> None:
    """Have a SuperLink's database serve many nodes: Flower's own settings are for few.

    With 32 nodes on a busy machine a write waited longer for its turn than Flower's 5 s, and the request failed: nodes
    counted as away, and the SuperExec died. And each connection may keep 64 MB of pages, several times all there are,
    beside those that the kernel keeps. Tasks that died are looked for with every object that a node asks for, by two
    writes each time, which was a third of the SuperLink's work; once a second is often enough.

    Raises:
        RuntimeError: This Flower sets its database up elsewhere.
    """
    database = import_module("flwr.supercore.sql_mixin")
    state = import_module("flwr.supercore.corestate.sql_corestate").SqlCoreState
    wanted = {"busy_timeout": "60000", "cache_size": "-8000"}  # milliseconds; thousands of bytes
    looks = getattr(state, "_cleanup_expired_task_tokens", None)
    if looks is None or not wanted.keys() <= dict(getattr(database, "SQLITE_PRAGMAS", ())).keys():
        raise RuntimeError("this Flower sets its database up elsewhere; with many nodes requests would fail")
    database.SQLITE_PRAGMAS = tuple((dict(database.SQLITE_PRAGMAS) | wanted).items())  # type: ignore[attr-defined]
    state._cleanup_expired_task_tokens = _once_a_second(looks)


def _once_a_second(looks: Callable[[Any], None]) -> Callable[[Any], None]:
    last = -math.inf

    def looks_when_due(state: Any) -> None:
        nonlocal last
        if (now := time.monotonic()) >= last + 1.0:
            last = now
            looks(state)

    return looks_when_due


def run_superlink(config: SuperLinkLifespanConfig) -> None:
    """Run a SuperLink in the foreground until it is told to stop."""
    import_module("flwr.superlink.cli.flower_superlink")._run_superlink_http_api(lifespan_config=config)


def run_superexec(executor: Callable[..., SubprocessExecutor]) -> None:
    """Run `flower-superexec`, by the options in ``sys.argv``, until it is told to stop.

    Args:
        executor: Makes what starts a process for every task, in place of Flower's own.

    Raises:
        RuntimeError: This Flower has another way to its executor.
    """
    running = import_module("flwr.supercore.superexec.run_superexec")
    if not hasattr(running, "get_executor"):
        raise RuntimeError("this Flower chooses its executor elsewhere; tasks' tokens would be in plain sight")
    running.get_executor = executor  # type: ignore[attr-defined]
    import_module("flwr.supercore.cli").flower_superexec()
