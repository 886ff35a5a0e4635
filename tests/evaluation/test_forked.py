"""Judging in several processes: the same figures as in one, errors as they are, and no process left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zk0.params import Params, with_changes

_EACH = """
import json, os, signal, sys, time
import torch
from zk0.errors import StageError
from zk0.evaluation.side_by_side import each

def square(number):
    if sys.argv[1] == "killed" and number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "error" and number == 2:
        raise StageError("the second is not fit")
    if sys.argv[1] == "stopped":
        if number == 1:
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
    time.sleep(0.2)
    return number * number, os.getpid(), torch.get_num_threads()

torch.set_num_threads(2)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children are begun without
try:
    made = dict(each(square, range(4), 2 if sys.argv[1] != "one" else 1))
except (StageError, KeyboardInterrupt) as error:
    made = {type(error).__name__: str(error)}
import psutil
print(json.dumps([made, os.getpid(), [p.pid for p in psutil.Process().children() if p.is_running()]]))
"""
_JUDGE = """
import resource, sys
from pathlib import Path
import torch
from zk0.data.manifest import read_manifests
from zk0.evaluation.judge import evaluation_of, judge_models
from zk0.federation.site import Site, recorded_limits
from zk0.params import load_params
from zk0.policy.start import load_start

root, params = Path(sys.argv[1]), load_params(Path(sys.argv[2]))
torch.set_num_threads(params.threads)
tasks = ("sim:push-red-cube-left", "sim:press-magenta-disc")
manifests = [m.model_copy(update={"source": task}) for m, task in zip(read_manifests(root)[0], tasks, strict=True)]
opened = lambda manifest: Site(root, manifest, 10**9)
limits = recorded_limits([opened(manifest) for manifest in manifests])
models = {model: load_start(root, "random:nano", "cpu") for model in ("base", "global")}
judged = judge_models(models, manifests, opened, params, limits)
files = {model: {"digest": "a" * 64} for model in models}
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0.1)
print(evaluation_of(files, judged, params, limits).model_dump_json())
"""


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def each(how: str) -> tuple[dict[str, object], int, list[int]]:
    made, own, left = json.loads(run(_EACH, how).splitlines()[-1])
    return made, own, left


def test_processes_of_one_thread_each() -> None:
    made, own, left = each("two")

    assert [made[str(n)][0] for n in range(4)] == [0, 1, 4, 9]  # type: ignore[index]
    processes = {pid for _, pid, _ in made.values()}  # type: ignore[misc]
    assert len(processes) == 2 and own not in processes and not left
    assert {threads for _, _, threads in made.values()} == {1}  # type: ignore[misc]

    alone, own, _ = each("one")
    assert {(pid, threads) for _, pid, threads in alone.values()} == {(own, 2)}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("error", {"StageError": "the second is not fit"}),
        ("killed", {"StageError": "a process that judged was lost, perhaps for want of memory: set threads lower"}),
        ("stopped", {"KeyboardInterrupt": ""}),
    ],
)
def test_what_ends_one_ends_all(how: str, told: dict[str, str]) -> None:
    made, _, left = each(how)
    assert made == told and not left


def test_figures_are_those_of_one_process(prepared: Path, tmp_path: Path, small_params: Params) -> None:
    told = []
    for threads in (1, 2):
        changes = {"threads": threads, "evaluation.rollouts": 2, "evaluation.max_steps": 8}
        file = tmp_path / f"{threads}.yaml"
        file.write_text(yaml.safe_dump(with_changes(small_params, changes).model_dump(mode="json")))
        told.append(run(_JUDGE, str(prepared), str(file)).splitlines()[-2:])

    assert [forked for forked, _ in told] == ["False", "True"]
    assert told[0][1] == told[1][1] and json.loads(told[0][1])["overall"]["trained"]["rollouts"] == 4
