"""rounds.jsonl and curves.csv: what stands of each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def round_row(
    number: int,
    held_out_loss: float,
    digest: str,
    sites: dict[str, dict[str, Any]],
    left_out: Mapping[str, str],
    bounded: Mapping[str, str],
) -> dict[str, Any]:
    """A round's row, with what a round that only judges (round 0) has of it."""
    return {
        "round": number,
        "train_loss": None,
        "held_out_loss": held_out_loss,
        "learning_rate": None,
        "server_learning_rate": None,
        "proximal_mu": None,
        "bytes_up": sum(site.get("bytes_up", 0) for site in sites.values()),
        "bytes_down": sum(site["bytes_down"] for site in sites.values()),
        "round_s": None,
        "aggregate_s": None,
        "digest": digest,
        "left_out": dict(left_out),
        "bounded": dict(bounded),
        "sites": sites,
    }


def both_parts(trained: dict[str, Any], judged: dict[str, Any]) -> dict[str, Any]:
    """A site's record of a round; what it was sent to train and to judge counts together.

    Either part may be empty: the site was not drawn, or was left out.
    """
    down = trained.get("bytes_down", 0) + judged.get("bytes_down", 0)
    return {"bytes_up": 0} | trained | judged | {"bytes_down": down}


def rows_with_best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the rounds that were the best so far."""
    marked, best = [], float("inf")
    for row in rows:
        is_best = row["round"] > 0 and row["held_out_loss"] < best
        best = row["held_out_loss"] if is_best else best
        marked.append({**row, "is_best": is_best})
    return marked


def curves(rows: Sequence[dict[str, Any]]) -> str:
    """Losses by round and site as CSV, for `dvc plots`."""
    lines = ["round,site,held_out_loss,train_loss"]
    for row in rows:
        sites = {"all sites": row, **row["sites"]}
        for site, values in sites.items():
            train = values.get("train_loss")
            lines.append(f"{row['round']},{site},{values.get('held_out_loss', '')},{'' if train is None else train}")
    return "\n".join(lines)
