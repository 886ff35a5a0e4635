"""The demo's local training: steps a second of the 2 M policy, with features kept and without.

Also beside LeRobot's own training on the same recording.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.harness import Outcome, plain_app
from benchmarks.isolated import isolated
from benchmarks.pieces import Pieces
from benchmarks.projects import CACHE, demo_params, prepared
from zk0.data.manifest import Manifest, read_manifests
from zk0.measuring.rows import row
from zk0.measuring.timing import Spread
from zk0.params import Params

NAME = "small_policy"
PEER = "lerobot-train 0.6.1"
OFF = "zk0 without kept features"
CACHES = ("off", "tokens", "prefix")


def measure(quick: bool, command: str, pieces: Pieces) -> Outcome:
    """Train with each kind of cache in turns, then as LeRobot does."""
    steps, repeats, turns, episodes = (6, 2, 1, 3) if quick else (30, 3, 2, 30)
    params = demo_params(
        data={"sites": {"red-cube": "sim:push-red-cube-left"}, "unseen": {}, "episodes": episodes},
    )
    root = prepared("small", params)
    folder = CACHE / "features" / NAME

    def own(cache: str) -> dict[str, Any]:
        return dict(
            isolated(
                "benchmarks.own_training:own_steps",
                root=str(root),
                folder=str(folder / cache),
                cache=cache,
                batch=params.training.batch,
                steps=steps,
                repeats=repeats,
                device="cpu",
                precision="fp32",
                threads=params.threads,
            )
        )

    def cold(cache: str) -> dict[str, Any]:
        shutil.rmtree(folder / cache, ignore_errors=True)
        return own(cache)

    built = {cache: pieces.get(f"{cache}, cold", cold, cache) for cache in CACHES}
    (site,) = read_manifests(root)[0]
    seconds: dict[str, list[float]] = {cache: [] for cache in CACHES}
    peer_s: list[float] = []
    for turn in range(1, turns + 1):
        for cache in CACHES:
            seconds[cache] += pieces.get(f"{cache}, warm, {turn}", own, cache)["step_s"]
        peer = pieces.get(f"lerobot-train, {turn}", _peer, root, site, params, steps * repeats)
        peer_s += [u + d for u, d in zip(peer["update_s"][1:], peer["data_s"][1:], strict=True)]
    rates = {cache: 1 / Spread.of(values).median for cache, values in seconds.items()}
    peer_rate = 1 / Spread.of(peer_s).median
    work = f"local training of {steps} steps of batch {params.training.batch}, data loading included"
    rows = []
    for cache in CACHES:
        kept = f"{cache} kept" if cache != "off" else "nothing kept"
        if cache != "off":
            rows.append(
                row(f"small policy, {kept}", work, "steps/s", rates[cache], command, peer=rates["off"], peer_name=OFF)
            )
        rows.append(
            row(
                f"small policy, {kept}, beside LeRobot",
                work,
                "steps/s",
                rates[cache],
                command,
                peer=peer_rate,
                peer_name=PEER,
            )
        )
    spread = {f"small policy, {cache}": f"{Spread.of(values)} s a step" for cache, values in seconds.items()}
    return Outcome(
        title="Local training, small policy",
        about=(
            "The demo's policy (2 M parameters, two 96x96 cameras) on one of its recordings: steps a second of the "
            "function that a site trains with, with image tokens kept, with keys and values of the prefix kept, and "
            f"with nothing kept; and `lerobot-train` on the same dataset with a loader of 2 workers and "
            f"{peer['decoder']} decoding."
        ),
        rows=rows,
        spread=spread | {PEER: f"{Spread.of(peer_s)} s a step"},
        more={"build_s_frame": {cache: built[cache]["build_s"] / built[cache]["frames"] for cache in CACHES}},
    )


def _peer(root: Path, site: Manifest, params: Params, steps: int) -> dict[str, Any]:
    policy = isolated("benchmarks.own_training:smolvla_settings", root=str(root))
    return dict(
        isolated(
            "benchmarks.peers.lerobot_training:lerobot_steps",
            dataset=str(root / site.root),
            repo_id=site.repo_id,
            episodes=list(site.train_episodes),
            policy=policy,
            batch=params.training.batch,
            steps=1 + steps,
            device="cpu",
            precision="fp32",
            workers=2,
            threads=params.threads,
        )
    )


app = plain_app(NAME, "Steps a second of the demo's local training.", measure)

if __name__ == "__main__":
    app()
