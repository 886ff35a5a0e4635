"""The recipes of docs/ARCHITECTURE.md, "Where do I add ...": each is tried by adding one, in a copy of the code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class House:
    """A copy of the code, to which something is added as its recipe says."""

    root: Path

    def new(self, path: str, content: str) -> None:
        """Add a module."""
        (self.root / "zk0" / path).write_text(textwrap.dedent(content))

    def insert(self, path: str, before: str, line: str) -> None:
        """Add text in front of other text, which must be there once."""
        file = self.root / "zk0" / path
        text = file.read_text()
        assert text.count(before) == 1, f"{path} has {text.count(before)} times {before!r}"
        file.write_text(text.replace(before, line + before))

    def says(self, code: str) -> str:
        """What code prints that runs in the copy."""
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | {"PYTHONPATH": str(self.root)},
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def house(tmp_path: Path) -> House:
    shutil.copytree(ROOT / "src" / "zk0", tmp_path / "zk0", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    return House(tmp_path)


def test_a_strategy(house: House) -> None:
    """The largest of all values at each place: it needs a fold, a finish and a row in the table."""
    house.new(
        "federation/largest.py",
        """
        from __future__ import annotations

        import math

        import torch

        from zk0.federation.aggregation import Aggregator, check_update


        class Largest(Aggregator):
            def __init__(self, start):
                self._start, self._most = start, {}

            def fold(self, delta, weight, longest=math.inf):
                norm = check_update(delta, weight, self._start, longest)
                self._most = {name: torch.maximum(self._most.get(name, delta[name]), delta[name]) for name in delta}
                return norm

            def finish(self):
                most, self._most = self._most, {}
                return most
        """,
    )
    house.insert("federation/strategy.py", "from zk0.federation.robust", "from zk0.federation.largest import Largest\n")
    house.insert(
        "federation/strategy.py", '    "fedprox": ', '    "largest": _Row(lambda _, start, __: Largest(start), _sgd),\n'
    )
    house.insert("params/federation.py", '"fedavg", "fedprox"', '"largest", ')

    found = house.says(
        """
        from pathlib import Path

        import torch

        from zk0.federation.strategy import check_enough, cost, make_aggregator, make_optimizer
        from zk0.params import FederationParams

        params = FederationParams(strategy="largest", server_learning_rate=0.5)
        check_enough(params, 2)
        start = {"w": torch.tensor([1.0, 1.0])}
        with make_aggregator(params, start, Path(".")) as aggregator:
            for delta in ([2.0, -1.0], [-2.0, 4.0]):
                aggregator.fold({"w": torch.tensor(delta)}, 1.0)
            update = aggregator.finish()
        print(make_optimizer(params).step({}, start, update)[0]["w"].tolist(), cost(params, 2, 8).split(":")[0])
        """
    )

    assert found == "[2.0, 3.0] largest streams"


def test_a_codec(house: House) -> None:
    """Values as float16: it needs a length, both ways and an entry; error feedback and the wire take it as it is."""
    house.new(
        "federation/codecs/half.py",
        """
        from __future__ import annotations

        import torch

        from zk0.federation.codecs.base import Codec, Encoded, as_bytes, from_bytes


        class Fp16(Codec):
            name = "fp16"
            lossless = False

            def payload_bytes(self, values):
                return 2 * values

            def encode(self, name, tensor):
                return Encoded(self.name, tuple(tensor.shape), as_bytes(tensor.to(torch.float16)))

            def decode(self, name, payload, shape, out=None):
                values = from_bytes(name, payload, self.payload_bytes(torch.Size(shape).numel()), shape)
                decoded = values.view(torch.float16).reshape(shape)
                return decoded.float() if out is None else out.copy_(decoded)
        """,
    )
    house.insert("federation/codecs/__init__.py", "from zk0.policy", "from zk0.federation.codecs.half import Fp16\n")
    house.insert("federation/codecs/__init__.py", 'Blocks("int8"', "Fp16(), ")
    house.insert("params/federation.py", '"bf16", ', '"fp16", ')

    found = house.says(
        """
        import torch
        from flwr.app import RecordDict

        from zk0.federation import codecs, wire
        from zk0.params import FederationParams

        codec = FederationParams(uplink="fp16").uplink
        encoded, left = codecs.encode_with_error(codecs.codec_named(codec), {"w": torch.tensor([1.0, 1 + 2.0**-12])})
        content = RecordDict()
        wire.put(content, "delta", wire.record_of(encoded))
        wire.check(content, {"delta": codecs.forms_of(codecs.codec_named(codec), {"w": torch.empty(2)})})
        print(wire.payload_bytes(content), wire.unpack(content, "delta", codec)["w"].tolist(), left["w"].tolist())
        """
    )

    assert found == "4 [1.0, 1.0] [0.0, 0.000244140625]"


def test_a_kind_of_source(house: House) -> None:
    """Recordings on sticks, each below one folder: a word, a digest and a place."""
    house.insert("sources.py", '"hub"]\n', '"stick", ')
    house.insert(
        "sources.py",
        '        if kind == "hub":',
        '        if kind == "stick":\n            return cls("stick", rest)\n',
    )
    house.insert(
        "sources_lock.py",
        "    else:\n        digest = hub_commit(",
        '    elif source.kind == "stick":\n        digest, detail = _local(f"sticks/{source.name}", root, cache)\n',
    )
    house.insert(
        "pipeline/prepare.py",
        "    return DatasetFolder(fetch_dataset(",
        '    if source.kind == "stick":\n        return DatasetFolder(root / "sticks" / source.name, source.name)\n',
    )
    (house.root / "sticks/mine/meta").mkdir(parents=True)
    (house.root / "sticks/mine/meta/info.json").write_text('{"codebase_version": "v3.0"}')

    found = house.says(
        """
        from pathlib import Path

        from zk0.params import load_params
        from zk0.pipeline.prepare import find_dataset
        from zk0.sources import Source
        from zk0.sources_lock import resolve_sources

        base = load_params(Path("params.yaml"))
        data = base.data.model_copy(update={"sites": {"one": "stick:mine"}, "unseen": {}})
        params = base.model_copy(update={"data": data})
        entry = resolve_sources(params, Path("."))["sources"]["one"]
        place = find_dataset(Path("."), "one", Source.parse("stick:mine"), entry["digest"])
        print(entry["source"], entry["detail"]["codebase_version"], place.root)
        """
    )

    assert found == "stick:mine v3.0 sticks/mine"


def test_a_remark_on_recordings(house: House) -> None:
    """That an episode begins with the gripper open: a function, its call, a word and an advice."""
    house.insert("data/quality/remarks.py", '    "words",\n]', '    "open",\n')
    house.insert("data/quality/remarks.py", '    "words": "', '    "open": "Begin with a closed gripper.",\n')
    house.new(
        "data/quality/grippers.py",
        """
        from zk0.data.quality.remarks import Remark


        def grippers(numbers):
            wide = (episode for episode, states in numbers.states.items() if states[0, 5] > 50)
            return [Remark("open", episode, "the gripper is open at first") for episode in wide]
        """,
    )
    house.insert(
        "data/quality/judge.py", "from zk0.data.quality.looks", "from zk0.data.quality.grippers import grippers\n"
    )
    house.insert("data/quality/judge.py", "        *words(numbers),", "        *grippers(numbers),\n")

    found = house.says(
        """
        import numpy as np

        from zk0.data.quality.judge import judge
        from zk0.data.quality.remarks import Numbers

        swing = np.linspace(0, 60, 120)[:, None] * np.ones(6)
        moved = {0: swing, 1: swing[::-1].copy()}
        remarks = judge(Numbers(30, moved, moved, {0: "push", 1: "push"}), {}).remarks
        print([(remark.episode, remark.text) for remark in remarks if remark.kind == "open"])
        """
    )

    assert found == "[(1, 'the gripper is open at first')]"


def test_a_check_of_the_machine(house: House) -> None:
    house.new(
        "environment/names.py",
        """
        from zk0.checks import Check


        def check_folder(root):
            return Check("folder", " " not in str(root), str(root), "a name without spaces", "rename it", "note")
        """,
    )
    house.insert(
        "environment/__init__.py", "from zk0.environment.needs", "from zk0.environment.names import check_folder\n"
    )
    house.insert("environment/__init__.py", "        check_video(),", "        check_folder(root),\n")

    found = house.says(
        """
        from pathlib import Path

        from zk0.environment import check_environment
        from zk0.params import load_params

        checks = check_environment(load_params(Path("params.yaml")), Path(".")).checks
        print([check.found for check in checks if check.name == "folder"])
        """
    )

    assert found == "['.']"


def test_a_stage(house: House) -> None:
    """A module and a line: the command, DVC's digest of its code and the flow's task are made of these."""
    house.new(
        "pipeline/count.py",
        """
        def run(root, params):
            (root / "count.txt").write_text(f"{len(params.data.sites)} sites")
        """,
    )
    house.insert("pipeline/stages.py", "STAGES = (", 'COUNT = _stage("count sites", "count", "Count the sites.")\n')
    house.insert("pipeline/stages.py", "REPORT, TRACK)", "COUNT, ")
    house.insert("environment/code.py", '"report", "track")', '"count", ')

    found = house.says(
        """
        from pathlib import Path

        from typer.testing import CliRunner

        from zk0.cli.app import app
        from zk0.environment.code import Installed
        from zk0.pipeline.stages import STAGES
        from zk0.steps import names_of

        done = CliRunner().invoke(app, ["count"])
        assert done.exit_code == 0, done.output
        print(Path("count.txt").read_text(), "count sites" in names_of(STAGES), "count" in Installed().digests())
        """
    )

    assert found == "4 sites True True"


def test_a_step_of_a_workflow(house: House) -> None:
    house.insert(
        "workspaces/training.py",
        "STEPS: tuple",
        """
@step("rest")
def rest(training: Training) -> None:
    \"\"\"Let the machine cool down.\"\"\"


""".lstrip(),
    )
    house.insert("workspaces/training.py", "    validate_model,\n)", "    rest,\n")

    found = house.says(
        """
        from zk0.steps import names_of, step_named
        from zk0.workspaces.training import STEPS

        print(names_of(STEPS)[-2:], step_named(STEPS, "rest").about)
        """
    )

    assert found == "('rest', 'validation') Let the machine cool down."
