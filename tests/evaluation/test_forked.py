"""Judging in several processes: the same figures as in one, errors as they are, and no process left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from zk0.params import Params, with_changes

_EACH = """
import json, os, signal, time
from zk0 import runtime_env
runtime_env.switch_off()
import psutil
import torch
from zk0.errors import StageError
from zk0.evaluation.side_by_side import each

def square(how, number):
    if how == "killed" and number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "error" and number == 2:
        raise StageError("the second is not fit")
    if how == "stopped":
        if number == 1:
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
    time.sleep(0.2)
    return number * number, os.getpid(), torch.get_num_threads()

def told(how):
    try:
        made = dict(each(lambda number: square(how, number), range(4), 1 if how == "one" else 2))
    except (StageError, KeyboardInterrupt) as error:
        made = {type(error).__name__: str(error)}
    return made, os.getpid(), [p.pid for p in psutil.Process().children() if p.is_running()]

torch.set_num_threads(2)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children are begun without
print(json.dumps({how: told(how) for how in ("two", "error", "killed", "stopped", "one")}))
"""
_JUDGE = """
import json, resource, sys
from zk0 import runtime_env
runtime_env.switch_off()
from pathlib import Path
import torch
from zk0.data.manifest import read_manifests
from zk0.evaluation.judge import evaluation_of, judge_models
from zk0.federation.site import Site, recorded_limits
from zk0.params import load_params
from zk0.policy.start import load_start

root, params = Path(sys.argv[1]), load_params(Path(sys.argv[2]))
tasks = ("sim:push-red-cube-left", "sim:press-magenta-disc")
manifests = [m.model_copy(update={"source": task}) for m, task in zip(read_manifests(root)[0], tasks, strict=True)]
opened = lambda manifest: Site(root, manifest, 10**9)
limits = recorded_limits([opened(manifest) for manifest in manifests])
models = {model: load_start(root, "random:nano", "cpu") for model in ("base", "global")}
files, before, told = {model: {"digest": "a" * 64} for model in models}, 0.0, []
for threads in (2, 1):  # what has rendered does not fork any more
    torch.set_num_threads(threads)
    judged = judge_models(models, manifests, opened, params.model_copy(update={"threads": threads}), limits)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    told.append((spent > before + 0.1, evaluation_of(files, judged, params, limits).model_dump(mode="json")))
    before = spent
print(json.dumps(told))
"""


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[dict[str, Any], int, list[int]]]:
    """What came of four items, by what became of those that worked on them; then one's own number, and who is left."""
    found: dict[str, tuple[dict[str, Any], int, list[int]]] = json.loads(run(_EACH).splitlines()[-1])
    return found


def test_processes_of_one_thread_each(told: dict[str, tuple[dict[str, Any], int, list[int]]]) -> None:
    made, own, left = told["two"]

    assert [made[str(n)][0] for n in range(4)] == [0, 1, 4, 9]
    processes = {pid for _, pid, _ in made.values()}
    assert len(processes) == 2 and own not in processes and not left
    assert {threads for _, _, threads in made.values()} == {1}

    alone, own, _ = told["one"]
    assert {(pid, threads) for _, pid, threads in alone.values()} == {(own, 2)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("error", {"StageError": "the second is not fit"}),
        ("killed", {"StageError": "a process that judged was lost, perhaps for want of memory: set threads lower"}),
        ("stopped", {"KeyboardInterrupt": ""}),
    ],
)
def test_what_ends_one_ends_all(
    told: dict[str, tuple[dict[str, Any], int, list[int]]], how: str, said: dict[str, str]
) -> None:
    made, _, left = told[how]
    assert made == said and not left


def test_figures_are_those_of_one_process(prepared: Path, tmp_path: Path, small_params: Params) -> None:
    params = with_changes(small_params, {"evaluation.rollouts": 2, "evaluation.max_steps": 8})
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params.model_dump(mode="json")))

    (forked, side_by_side), (here, alone) = json.loads(run(_JUDGE, str(prepared), str(file)).splitlines()[-1])

    assert (forked, here) == (True, False)
    assert side_by_side == alone and alone["overall"]["trained"]["rollouts"] == 4
