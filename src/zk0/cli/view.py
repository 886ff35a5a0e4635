"""`zk0 view`: recordings, rollouts and a policy's chunks in Rerun."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import ParamsFile
from zk0.console import console, errors

app = typer.Typer()
_ROLLOUTS = "rollouts"
_PORT = 9090  # Rerun's own, for the page; what is on it comes by its 9876


@app.command(rich_help_panel="Start here")
def view(
    what: Annotated[
        str,
        typer.Argument(
            help="'rollouts', those of the last evaluation; a partition, as data/manifests names it; or a dataset: a "
            "folder, local:PATH or hub:OWNER/NAME@REVISION."
        ),
    ] = _ROLLOUTS,
    episode: Annotated[
        int | None, typer.Option(min=0, help="Which; by default the first, of a partition the first held out.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Beside a partition's actions, the chunks that this model would send: best (of the last run), base, a "
            "version, @champion, or a checkpoint folder.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE.rrd", help="Write this file, and open nothing.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="For a browser, as where there is no desktop.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Look at an episode, at rollouts, or at a policy's chunks, in Rerun (https://rerun.io)."""
    from zk0.errors import StageError
    from zk0.machine.packages import demand

    try:
        demand("view", "`zk0 view`")
    except StageError as error:
        if save or serve or policy or not _show_page(what):
            raise
        errors.print(str(error), markup=False)
        return
    if what == _ROLLOUTS and (policy or episode is not None):
        raise StageError("--policy and --episode are for recordings: say which, as in `zk0 view SITE --policy best`")
    with tempfile.TemporaryDirectory(prefix="zk0-view-") as folder:
        file = save or Path(folder) / "view.rrd"
        if what == _ROLLOUTS:
            from zk0.reporting.in_rerun import write_rollouts

            write_rollouts(file, Path.cwd())
        else:
            from zk0.pipeline.view import view as write_view

            write_view(Path.cwd(), file, what, episode, policy, params)
        if save:
            console.print(f"wrote {save}; `rerun {save}` shows it", markup=False)
        else:
            _show(file, Path(folder), serve)


def _show_page(what: str) -> bool:
    """Name and open the page that shows something of it already; whether there is one."""
    from zk0.machine.desktop import show_in_browser
    from zk0.records.paths import RECORDING_PAGES, REPORT

    page = (REPORT if what == _ROLLOUTS else RECORDING_PAGES / f"{what}.html").resolve()
    if page.is_file():
        console.print(f"{page} shows a part of it", markup=False)
        show_in_browser(page.as_uri())
    return page.is_file()


def _show(file: Path, folder: Path, serve: bool) -> None:
    """Show a file in Rerun's viewer until that is closed, or in a browser until Ctrl-C; all on loopback."""
    from zk0.machine.desktop import has_desktop
    from zk0.services.process import own_environment

    env, rerun = own_environment(RUST_LOG="warn"), [sys.executable, "-m", "rerun_cli"]
    if sys.platform.startswith("linux"):  # elsewhere it would be the user's one setting for all that Rerun shows
        env["XDG_CONFIG_HOME"] = str(folder)
        subprocess.run([*rerun, "analytics", "disable"], env=env, capture_output=True, check=False)
    command = [*rerun, "--bind", "127.0.0.1", str(file)]
    if serve or not has_desktop():
        command += ["--serve-web", "--web-viewer-port", str(_PORT)]
        page = f"http://127.0.0.1:{_PORT}/?url=rerun%2Bhttp%3A%2F%2F127.0.0.1%3A9876%2Fproxy"
        console.print(f"{page}\nCtrl-C ends it", markup=False)
    try:
        raise typer.Exit(subprocess.run(command, env=env, check=False).returncode)
    except KeyboardInterrupt:
        raise typer.Exit from None
