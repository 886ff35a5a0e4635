"""``python -m zk0.network.client --project FOLDER``: a site's trainer, in the foreground."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

from zk0 import runtime_env
from zk0.errors import StageError
from zk0.params import PARAMS_FILE, ParamsError, load_params


def main(arguments: list[str] | None = None) -> None:
    """Load the site and serve it until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m zk0.network.client", description=main.__doc__)
    parser.add_argument("--project", type=Path, required=True, help="the site's folder")
    parser.add_argument("--partition", type=int, help="which of its sites; needed where there are several")
    given = parser.parse_args(arguments)
    runtime_env.switch_off()  # before the libraries are imported, which look at the environment once
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        params = load_params(given.project / PARAMS_FILE)
        import torch  # noqa: PLC0415 - after the environment is set

        from zk0.network.client.membership import owner_demands  # noqa: PLC0415 - as torch
        from zk0.network.client.trainer import Trainer  # noqa: PLC0415 - as torch

        torch.set_num_threads(params.threads)
        folder = given.project.resolve()
        trainer = Trainer(folder, params, given.partition, owner_demands(folder))
        logging.info("site %s is loaded in %.1f s", trainer.manifest.site, trainer.load())
        trainer.serve()
    except (StageError, ParamsError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        logging.info("stopped")


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
