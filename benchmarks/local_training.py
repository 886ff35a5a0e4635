"""A site's training step at full size: zk0 from kept features beside LeRobot's own training.

The 450 M SmolVLA with random weights on a LeRobotDataset of two 480x640 cameras. The peer is
``lerobot-train``'s own function, unchanged; see benchmarks/peers/lerobot_training.py.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import typer

from benchmarks.harness import Fresh, Keep, Out, Outcome, Part, Quick, command_of, run_alone
from benchmarks.isolated import isolated
from benchmarks.pieces import Pieces
from benchmarks.projects import CACHE, camera_params, prepared
from zk0.data.manifest import read_manifests
from zk0.measuring.rows import Row, row
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
        episodes, frames: Of the dataset; a quarter of the episodes is held out.
        own_steps: Steps of one of our local trainings.
        peer_steps: Steps of the peer that count.
        peer_warm_up: Its steps before them: in the first its optimiser allocates, and its loader's processes take
            the first steps' time to start.
        repeats: How often both take turns.
        workers: Processes of the peer's loader.
        threads: Of either.
    """

    device: Literal["cpu", "cuda"]
    batch: int
    precision: Literal["fp32", "bf16"]
    episodes: int
    frames: int
    own_steps: int
    peer_steps: int
    peer_warm_up: int
    repeats: int
    workers: int
    threads: int

    @classmethod
    def of(cls, device: Literal["cpu", "cuda"], batch: int, precision: Literal["fp32", "bf16"], quick: bool) -> Setting:
        """Sizes for a machine: a CPU takes minutes for what a GPU does in a second."""
        cores = len(os.sched_getaffinity(0))
        if device == "cuda":
            steps = 10 if quick else 40
            frames, repeats = (100, 1) if quick else (300, 3)
            return cls(device, batch, precision, 4, frames, steps, steps, 4, repeats, cores, cores)
        if quick:
            return cls(device, batch, precision, 2, 4, 4, 1, 1, 1, 2, 2)
        return cls(device, batch, precision, 4, 8, 10, 5, 3, 2, 2, 2)

    @property
    def variant(self) -> str:
        """What tells this comparison from the default one; empty for the default."""
        parts = [self.device if self.device != "cpu" else "", f"batch{self.batch}" if self.batch != 2 else ""]
        parts.append(self.precision if self.precision != "fp32" else "")
        return "-".join(part for part in parts if part)


def measure(setting: Setting, command: str, pieces: Pieces) -> Outcome:
    """Build the cache, then let ours and the peer take turns."""
    dataset = Path(isolated("benchmarks.camera_data:make", episodes=setting.episodes, frames=setting.frames))
    root = prepared(f"cameras-{setting.episodes}x{setting.frames}", camera_params(dataset))
    policy = pieces.get("policy", isolated, "benchmarks.own_training:smolvla_settings", root=str(root))
    episodes = list(read_manifests(root)[0][0].train_episodes)
    folder = CACHE / "features" / f"{NAME}-{setting.device}-{setting.precision}"

    def own(cache: str, repeats: int) -> dict[str, Any]:
        return dict(
            isolated(
                "benchmarks.own_training:own_steps",
                root=str(root),
                folder=str(folder),
                cache=cache,
                batch=setting.batch,
                steps=setting.own_steps,
                repeats=repeats,
                device=setting.device,
                precision=setting.precision,
                threads=setting.threads,
            )
        )

    def peer() -> dict[str, Any]:
        return dict(
            isolated(
                "benchmarks.peers.lerobot_training:lerobot_steps",
                dataset=str(dataset),
                repo_id="zk0/bench-cameras",
                episodes=episodes,
                policy=policy,
                batch=setting.batch,
                steps=setting.peer_warm_up + setting.peer_steps,
                device=setting.device,
                precision=setting.precision,
                workers=setting.workers,
                threads=setting.threads,
            )
        )

    def build(cache: str) -> dict[str, Any]:
        if cache == "tokens":
            shutil.rmtree(folder, ignore_errors=True)
        return own(cache, 1)

    built = {cache: pieces.get(f"{cache}, cold", build, cache) for cache in ("tokens", "prefix")}
    warm: dict[str, list[dict[str, Any]]] = {"tokens": [], "prefix": []}
    peers = []
    for number in range(1, setting.repeats + 1):
        for cache, results in warm.items():
            results.append(pieces.get(f"{cache}, warm, {number}", own, cache, 2))
        peers.append(pieces.get(f"lerobot-train, {number}", peer))
    return outcome(setting, command, built, warm, peers)


def outcome(
    setting: Setting,
    command: str,
    built: dict[str, dict[str, Any]],
    warm: dict[str, list[dict[str, Any]]],
    peers: list[dict[str, Any]],
) -> Outcome:
    """Rows of what was measured."""
    skipped = setting.peer_warm_up
    peer_steps = [
        u + d for run in peers for u, d in zip(run["update_s"][skipped:], run["data_s"][skipped:], strict=True)
    ]
    peer = median(peer_steps)
    suffix = f", {setting.variant.replace('-', ', ')}" if setting.variant else ""
    work = f"one optimiser step of batch {setting.batch}, {setting.precision}, 450 M SmolVLA, two 480x640 cameras"
    rows: list[Row] = []
    waiting = median(seconds for run in peers for seconds in run["data_s"][skipped:])
    spread = {PEER: f"{Spread.of(peer_steps)} s, of which waiting for data {waiting:.2g} s"}
    lines: dict[str, list[list[float]]] = {}
    frame_s = {cache: run["build_s"] / run["frames"] for cache, run in built.items()}
    for cache, results in warm.items():
        steps = [value for run in results for value in run["step_s"]]
        ours = median(steps)
        name = f"local step, {cache} kept{suffix}"
        spread[name] = f"{Spread.of(steps)} s; building takes {frame_s[cache]:.3g} s a frame"
        rows.append(row(name, f"{work}, warm", "s", ours, command, peer=peer, peer_name=PEER))
        net = {visits: ours + setting.batch * frame_s[cache] / visits for visits in VISITS}
        rows += [
            row(
                f"{name}, {visits} visits a frame",
                f"{work}, share of building the cache included",
                "s",
                seconds,
                command,
                peer=peer,
                peer_name=PEER,
            )
            for visits, seconds in net.items()
        ]
        lines[f"zk0, {cache} kept"] = [[float(v), s] for v, s in net.items()]
    lines[PEER] = [[float(visits), peer] for visits in VISITS]
    plot = {
        "title": f"Optimiser step, cache building included{suffix}",
        "x": "visits a frame",
        "y": "seconds a step",
        "lines": lines,
        "log_x": True,
        "log_y": True,
    }
    return Outcome(
        title=f"Local training, 450 M{suffix}",
        about=(
            "LeRobot's `train()` runs unchanged (its policy, dataset class, sampler, loader with "
            f"{setting.workers} workers, {peers[0]['decoder']} decoding, preprocessor, optimiser preset and update), "
            "ours is the function that a site trains with, from features that are kept on disk: image tokens, or keys "
            "and values of image and language prefix. Same dataset, same training frames, same batch size, same "
            "threads; each in a process of its own, in turns. Our seconds are those of a whole local training of "
            f"{setting.own_steps} steps, with everything that belongs to it, over its steps; the peer's are its steps "
            f"alone, without the first {skipped}, in which its optimiser allocates and its loader's processes start."
        ),
        rows=rows,
        spread=spread,
        series={f"local-step{'-' + setting.variant if setting.variant else ''}": plot},
        more={
            "build_s_frame": frame_s,
            "bytes_frame": {cache: built[cache]["bytes_frame"] for cache in built},
            "peak_bytes": {
                **{cache: max(run["peak_bytes"] for run in results) for cache, results in warm.items()},
                PEER: max(run["peak_bytes"] for run in peers),
            },
        },
    )


@app.command()
def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Frames a step.")] = 2,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 (mixed).")] = "fp32",
    quick: Quick = False,
    out: Out = None,
    fresh: Fresh = False,
    keep: Keep = False,
    part: Part = False,
) -> None:
    """Compare a training step with LeRobot's, on a CPU or a GPU."""
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"device must be cpu or cuda, got '{device}'")
    if precision not in ("fp32", "bf16"):
        raise typer.BadParameter(f"precision must be fp32 or bf16, got '{precision}'")
    setting = Setting.of(device, batch, precision, quick)  # type: ignore[arg-type]
    command = command_of(NAME, device=device, batch=batch, precision=precision, quick=quick)
    key = f"{NAME}-{setting.variant}" if setting.variant else NAME
    run_alone(key, lambda p: measure(setting, command, p), quick=quick, out=out, fresh=fresh, keep=keep, part=part)


if __name__ == "__main__":
    app()
