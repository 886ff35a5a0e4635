"""The demo's local training: steps a second of the 2 M policy, with features kept and without.

Also beside LeRobot's own training on the same recording.
"""

from __future__ import annotations

from benchmarks.harness import Outcome, plain_app
from benchmarks.local_training import PEER, OwnSteps, PeerSteps, Trainings, peer_step_seconds
from benchmarks.pieces import Pieces
from benchmarks.projects import CACHE, demo_params, prepared
from zk0.measuring.timing import Spread

NAME = "small_policy"
OFF = "zk0 without kept features"
CACHES = ("off", "tokens", "prefix")
WORKERS = 2


def measure(pieces: Pieces) -> Outcome:
    """Train with each kind of cache in turns, then as LeRobot does."""
    steps, repeats, turns, episodes = (6, 2, 1, 3) if pieces.quick else (30, 3, 2, 30)
    params = demo_params(data={"sites": {"red-cube": "sim:push-red-cube-left"}, "unseen": {}, "episodes": episodes})
    root = prepared("small", params)
    trainings = Trainings(root, "cpu", params.training.batch, "fp32", params.threads)

    def own(cache: str, cold: bool = False) -> OwnSteps:
        return trainings.ours(CACHE / "features" / NAME / cache, cache, steps, repeats, cold)

    built = {cache: pieces.get(f"{cache}, cold", own, cache, True) for cache in CACHES}
    policy = pieces.get("policy", "benchmarks.own_training:smolvla_settings", root=str(root))
    seconds: dict[str, list[float]] = {cache: [] for cache in CACHES}
    peers = []
    for turn in range(1, turns + 1):
        for cache in CACHES:
            seconds[cache] += pieces.get(f"{cache}, warm, {turn}", own, cache)["step_s"]
        # The first step does not count: in it LeRobot's optimiser allocates.
        peers.append(pieces.get(f"lerobot-train, {turn}", trainings.peer, policy, 1 + steps * repeats, WORKERS))
    work = f"local training of {steps} steps of batch {params.training.batch}, data loading included"
    more: dict[str, object] = {"build_s_frame": {cache: run["build_s"] / run["frames"] for cache, run in built.items()}}
    return outcome(pieces, work, seconds, peers, more)


def outcome(
    pieces: Pieces, work: str, seconds: dict[str, list[float]], peers: list[PeerSteps], more: dict[str, object]
) -> Outcome:
    """Rows of what was measured."""
    rates = {cache: 1 / Spread.of(values).median for cache, values in seconds.items()}
    peer_s = Spread.of(peer_step_seconds(peers, 1))
    rows = []
    for cache, rate in rates.items():
        name = f"small policy, {cache} kept" if cache != "off" else "small policy, nothing kept"
        if cache != "off":
            rows.append(pieces.row(name, work, "steps/s", rate, (rates["off"], OFF)))
        rows.append(pieces.row(f"{name}, beside LeRobot", work, "steps/s", rate, (1 / peer_s.median, PEER)))
    spread = {f"small policy, {cache}": f"{Spread.of(values)} s a step" for cache, values in seconds.items()}
    return Outcome(
        title="Local training, small policy",
        about=(
            "The demo's policy (2 M parameters, two 96x96 cameras) on one of its recordings: steps a second of the "
            "function that a site trains with, with image tokens kept, with keys and values of the prefix kept, and "
            f"with nothing kept; and `lerobot-train` on the same dataset with a loader of {WORKERS} workers and "
            f"{peers[0]['decoder']} decoding."
        ),
        rows=rows,
        spread=spread | {PEER: f"{peer_s} s a step"},
        more=more,
    )


app = plain_app(NAME, "Steps a second of the demo's local training.", measure)

if __name__ == "__main__":
    app()
