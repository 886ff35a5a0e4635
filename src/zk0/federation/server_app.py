"""The ServerApp: the same on every engine; the engine gives it a Grid."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from zk0.federation.run import locked_base, run_federation
from zk0.params import load_params

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of the project named in the run's config."""
    from zk0.federation.console import print_event

    root = Path(str(context.run_config["project"]))
    run_federation(grid, root, load_params(root / "params.yaml"), locked_base(root), print_event)
