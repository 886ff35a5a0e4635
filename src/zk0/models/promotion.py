"""Commands about the champion: promote a version, take it back, say what was decided."""

from __future__ import annotations

from pathlib import Path

from zk0.console import console
from zk0.errors import StageError
from zk0.params import Params
from zk0.tracking.promotion import REFUSED, Promotion
from zk0.tracking.promotion import demote as demote_champion
from zk0.tracking.promotion import promote as promote_version


def promote(root: Path, params: Params, version: int, force: bool) -> None:
    """Make a version the champion if the gate lets it pass, or by force.

    Raises:
        StageError: The gate refused; every reason is told and recorded.
    """
    result = promote_version(root, params.tracking.model, version, params.promotion, force)
    tell_promotion(params.tracking.model, result)
    if result.outcome == REFUSED:
        raise StageError(f"version {version} was not promoted; `zk0 promote {version} --force` does it all the same")


def tell_promotion(model_name: str, result: Promotion) -> None:
    """Say what was decided, and why."""
    before = f"; before it was version {result.before}" if result.before else ""
    said = {
        "promoted": f"{model_name} version {result.version} is the champion{before}",
        "forced": f"{model_name} version {result.version} is the champion, by force{before}",
        REFUSED: f"{model_name} version {result.version} does not become the champion",
    }
    console.print(said[result.outcome], markup=False)
    console.print(f"  compared with {result.decision.against}", markup=False)
    for reason in result.decision.reasons:
        console.print(f"  {reason}", style="yellow", markup=False)


def demote(root: Path, params: Params) -> None:
    """Give the champion's place back to the version that had it before."""
    was, now = demote_champion(root, params.tracking.model)
    told = f"version {now} is again" if now else "there is no champion now: nightly runs start from the base"
    console.print(f"version {was} is no longer the champion; {told}", markup=False)
