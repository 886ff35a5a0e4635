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
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def house(tmp_path: Path) -> House:
    shutil.copytree(ROOT / "src" / "zk0", tmp_path / "zk0", ignore=shutil.ignore_patterns("__pycache__"))
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
