"""Flower's SuperLink with its doors closed: ``python -m zk0.network.server.superlink --operator-token FILE ...``.

All other options are `flower-superlink`'s own. Started so, Control takes the operator's token only, and what would
leave a door open is refused before anything listens: plain text, an address beside loopback (the network's only door is
the gateway), nodes without registered keys, and a Runtime API that hands the ServerApp's work to anybody.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zk0 import runtime_env
from zk0.errors import StageError
from zk0.federation import flower
from zk0.network.config import is_loopback
from zk0.network.security.files import read_operator_token


def check_closed(config: flower.SuperLinkLifespanConfig) -> None:
    """Refuse a SuperLink that would let somebody in.

    Raises:
        StageError: It would; names the option.
    """
    if config.insecure or config.certificates is None:
        raise StageError(
            "--insecure sends everything as plain text; give --ssl-certfile, --ssl-keyfile, --ssl-ca-certfile"
        )
    if not is_loopback(config.host):
        raise StageError(f"--host {config.host} is on the network, where only the gateway may be; use --host 127.0.0.1")
    if not config.enable_supernode_auth:
        raise StageError("without --enable-supernode-auth any node may join")
    if config.superexec_auth_secret is None:
        raise StageError(
            "without --isolation process and --superexec-auth-secret-file FILE everybody on this machine may take the "
            "ServerApp's work, and with it every site's updates"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the SuperLink in the foreground until it is told to stop."""
    runtime_env.switch_off(gives_back=True)  # before Flower is imported, which looks at the environment once
    from zk0.network.server.control import OperatorAccount  # noqa: PLC0415 - after the environment is set
    from zk0.services.telemetry import log_as_json  # noqa: PLC0415 - after the environment is set

    parser = argparse.ArgumentParser(prog="python -m zk0.network.server.superlink", add_help=False, allow_abbrev=False)
    parser.add_argument("--operator-token", type=Path, required=True)
    own, rest = parser.parse_known_args(arguments)
    sys.argv = ["flower-superlink", *rest]  # where Flower's own parser looks
    try:
        token = read_operator_token(own.operator_token)
        config = flower.superlink_config()
        check_closed(config)
    except StageError as error:
        sys.exit(f"error: {error}")
    config.authn_plugin = OperatorAccount(token)
    for handler in list(flower.FLOWER_LOGGER.handlers):  # coloured, and without the time
        flower.FLOWER_LOGGER.removeHandler(handler)
    log_as_json(flower.FLOWER_LOGGER)
    flower.steady_database()
    flower.run_superlink(config)


if __name__ == "__main__":
    main()
