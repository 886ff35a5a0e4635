"""A site's training step at full size: zk0 from kept features beside LeRobot's own training.

The 450 M SmolVLA with random weights on a LeRobotDataset of two 480x640 cameras. The peer is
``lerobot-train``'s own function, unchanged; see benchmarks/peers/lerobot.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, TypedDict

import typer

from benchmarks.harness import Fresh, Keep, Out, Outcome, Part, Plot, Quick, command_of, run_alone
from benchmarks.pieces import Pieces, isolated
from benchmarks.projects import CACHE, camera_params, prepared
from zk0.data.manifest import read_manifests
from zk0.measuring.timing import Spread

NAME = "local_training"
PEER = "lerobot-train 0.6.1"
VISITS = (1, 2, 10, 100)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Setting:
    """Sizes of the comparison.

    Attributes:
        device, batch, precision: As in params.
        workers: Processes of the peer's loader.
        threads: Of either.
        episodes, frames: Of the dataset; a quarter of the episodes is held out. They are ten seconds long, as owners
            record them: near an end a chunk is padding, which our layers leave out, so their length decides the ratio.
        own_steps: Steps of one of our local trainings.
        peer_steps: Steps of the peer that count.
        peer_warm_up: Its steps before them: in the first its optimiser allocates, and its loader's processes take
            the first steps' time to start.
        repeats: How often both take turns.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    batch: int = 2
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int = 2
    threads: int = 2
    episodes: int = 4
    frames: int = 300
    own_steps: int = 10
    peer_steps: int = 5
    peer_warm_up: int = 3
    repeats: int = 2

    @classmethod
    def of(cls, device: Literal["cpu", "cuda"], batch: int, precision: Literal["fp32", "bf16"], quick: bool) -> Setting:
        """Sizes for a machine: a CPU takes minutes for what a GPU does in a second."""
        if device == "cuda":
            cores, steps = len(os.sched_getaffinity(0)), 10 if quick else 40
            frames, repeats = (100, 1) if quick else (300, 3)
            return cls(device, batch, precision, cores, cores, 4, frames, steps, steps, 4, repeats)
        if quick:
            return cls(device, batch, precision, 2, 2, 2, 60, 4, 1, 1, 1)
        return cls(device, batch, precision)

    @property
    def variant(self) -> str:
        """What tells this comparison from the default one; empty for the default."""
        parts = [self.device if self.device != "cpu" else "", f"batch{self.batch}" if self.batch != 2 else ""]
        parts.append(self.precision if self.precision != "fp32" else "")
        return "-".join(part for part in parts if part)


class OwnSteps(TypedDict):
    """zk0's local trainings.

    Attributes:
        step_s: Seconds a step of each local training, everything in it included.
        build_s: Seconds for computing and keeping the features of all ``frames``; near 0 where they were there already.
        frames: How many different ones it trains on.
        bytes_frame: What was written for a frame, on disk.
        peak_bytes: Most memory of the process.
    """

    step_s: list[float]
    build_s: float
    frames: int
    bytes_frame: float
    peak_bytes: int


class PeerSteps(TypedDict):
    """LeRobot's training: seconds of update and of waiting for data of each step, until the first, and its decoder."""

    update_s: list[float]
    data_s: list[float]
    start_s: float
    peak_bytes: int
    decoder: str


@dataclass(frozen=True)
class Trainings:
    """A project's local training by zk0 and by LeRobot, each call in a process of its own.

    Attributes:
        root: A prepared project; its first site trains.
        device, batch, precision, threads: As in params, of both.
    """

    root: Path
    device: str
    batch: int
    precision: str
    threads: int

    def ours(self, folder: Path, cache: str, steps: int, repeats: int, cold: bool) -> OwnSteps:
        """See :func:`benchmarks.own_training.own_steps`."""
        found: OwnSteps = isolated(
            "benchmarks.own_training:own_steps",
            root=str(self.root),
            folder=str(folder),
            cold=cold,
            cache=cache,
            steps=steps,
            repeats=repeats,
            **self._common(),
        )
        return found

    def peer(self, policy: dict[str, object], steps: int, workers: int) -> PeerSteps:
        """See :func:`benchmarks.peers.lerobot.lerobot_steps`."""
        site = read_manifests(self.root)[0][0]
        found: PeerSteps = isolated(
            "benchmarks.peers.lerobot:lerobot_steps",
            dataset=str(self.root / site.root),
            repo_id=site.repo_id,
            episodes=list(site.train_episodes),
            policy=policy,
            steps=steps,
            workers=workers,
            **self._common(),
        )
        return found

    def _common(self) -> dict[str, object]:
        return {"device": self.device, "batch": self.batch, "precision": self.precision, "threads": self.threads}


def peer_step_seconds(runs: Sequence[PeerSteps], skipped: int) -> list[float]:
    """Seconds of each of the peer's steps, update and waiting for data, without the first so many of each run."""
    return [u + d for run in runs for u, d in zip(run["update_s"][skipped:], run["data_s"][skipped:], strict=True)]


def measure(setting: Setting, pieces: Pieces) -> Outcome:
    """Build the cache, then let ours and the peer take turns."""
    dataset = Path(isolated("benchmarks.recordings:cameras", episodes=setting.episodes, frames=setting.frames))
    root = prepared(f"cameras-{setting.episodes}x{setting.frames}", camera_params(dataset))
    trainings = Trainings(root, setting.device, setting.batch, setting.precision, setting.threads)
    policy = pieces.get("policy", "benchmarks.own_training:smolvla_settings", root=str(root))
    folder = CACHE / "features" / f"{NAME}-{setting.device}-{setting.precision}"

    def own(cache: str, repeats: int, cold: bool = False) -> OwnSteps:
        return trainings.ours(folder / cache, cache, setting.own_steps, repeats, cold)

    built = {cache: pieces.get(f"{cache}, cold", own, cache, 1, True) for cache in ("tokens", "prefix")}
    warm: dict[str, list[OwnSteps]] = {"tokens": [], "prefix": []}
    peers = []
    for number in range(1, setting.repeats + 1):
        for cache, results in warm.items():
            results.append(pieces.get(f"{cache}, warm, {number}", own, cache, 2))
        steps = setting.peer_warm_up + setting.peer_steps
        peers.append(pieces.get(f"lerobot-train, {number}", trainings.peer, policy, steps, setting.workers))
    return outcome(setting, pieces, built, warm, peers)


def outcome(
    setting: Setting,
    pieces: Pieces,
    built: dict[str, OwnSteps],
    warm: dict[str, list[OwnSteps]],
    peers: list[PeerSteps],
) -> Outcome:
    """Rows of what was measured."""
    skipped = setting.peer_warm_up
    peer_steps = peer_step_seconds(peers, skipped)
    peer = (median(peer_steps), PEER)
    suffix = f", {setting.variant.replace('-', ', ')}" if setting.variant else ""
    work = f"one optimiser step of batch {setting.batch}, {setting.precision}, 450 M SmolVLA, two 480x640 cameras"
    rows = []
    waiting = median(seconds for run in peers for seconds in run["data_s"][skipped:])
    spread = {PEER: f"{Spread.of(peer_steps)} s, of which waiting for data {waiting:.2g} s"}
    lines: dict[str, list[list[float]]] = {}
    frame_s = {cache: run["build_s"] / run["frames"] for cache, run in built.items()}
    for cache, results in warm.items():
        steps = [value for run in results for value in run["step_s"]]
        name = f"local step, {cache} kept{suffix}"
        spread[name] = f"{Spread.of(steps)} s; building takes {frame_s[cache]:.3g} s a frame"
        rows.append(pieces.row(name, f"{work}, warm", "s", median(steps), peer))
        net = {visits: median(steps) + setting.batch * frame_s[cache] / visits for visits in VISITS}
        included = f"{work}, share of building the cache included"
        rows += [pieces.row(f"{name}, {visits} visits a frame", included, "s", s, peer) for visits, s in net.items()]
        lines[f"zk0, {cache} kept"] = [[float(v), s] for v, s in net.items()]
    lines[PEER] = [[float(visits), peer[0]] for visits in VISITS]
    plot: Plot = {
        "title": f"Optimiser step, cache building included{suffix}",
        "x": "visits a frame",
        "y": "seconds a step",
        "lines": lines,
        "log_x": True,
        "log_y": True,
    }
    peaks = {cache: max(run["peak_bytes"] for run in runs) for cache, runs in warm.items()}
    peaks[PEER] = max(run["peak_bytes"] for run in peers)
    return Outcome(
        title=f"Local training, 450 M{suffix}",
        about=(
            "LeRobot's `train()` runs unchanged (its policy, dataset class, sampler, loader with "
            f"{setting.workers} workers, {peers[0]['decoder']} decoding, preprocessor, optimiser preset and update), "
            "ours is the function that a site trains with, from features that are kept on disk: image tokens, or keys "
            "and values of image and language prefix. Same dataset, same training episodes, same batch size, same "
            "threads; each in a process of its own, in turns. Our seconds are those of a whole local training of "
            f"{setting.own_steps} steps, with everything that belongs to it, over its steps; the peer's are its steps "
            f"alone, without the first {skipped}, in which its optimiser allocates and its loader's processes start."
        ),
        rows=rows,
        spread=spread,
        series={f"local-step{'-' + setting.variant if setting.variant else ''}": plot},
        more={
            "build_s_frame": frame_s,
            "bytes_frame": {cache: run["bytes_frame"] for cache, run in built.items()},
            "peak_bytes": peaks,
        },
    )


@app.command()
def main(
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="cpu or cuda.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Frames a step.")] = 2,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="fp32, or bf16 (mixed).")] = "fp32",
    quick: Quick = False,
    out: Out = None,
    fresh: Fresh = False,
    keep: Keep = False,
    part: Part = False,
) -> None:
    """Compare a training step with LeRobot's, on a CPU or a GPU."""
    setting = Setting.of(device, batch, precision, quick)
    command = command_of(NAME, device=device, batch=batch, precision=precision, quick=quick)
    key = f"{NAME}-{setting.variant}" if setting.variant else NAME

    def work(pieces: Pieces) -> Outcome:
        return measure(setting, pieces)

    run_alone(key, work, command=command, quick=quick, out=out, fresh=fresh, keep=keep, part=part)


if __name__ == "__main__":
    app()
