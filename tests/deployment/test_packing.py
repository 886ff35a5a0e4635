"""Many tensors as one, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from zk0.deployment.packing import PackingError, is_packed, pack, unpack
from zk0.federation import protocol, wire
from zk0.params import Codec

TENSORS = {"a": torch.tensor([[1.0, -2.0], [3.0, 0.5]]), "b": torch.tensor([0.25]), "none": torch.zeros(0, 3)}


def content(codec: Codec = "fp32") -> RecordDict:
    made = RecordDict()
    protocol.write(made, protocol.Header(run="r", round=1, partition=0))
    wire.put(made, protocol.DELTA, wire.encode(TENSORS, codec))
    wire.put(made, protocol.STATS, wire.encode({"mean": torch.tensor([7.0, 8.0])}))
    return made


def crossed(sent: RecordDict) -> RecordDict:
    """As Flower takes it apart, sends it and puts it together again."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(sent, 2, "train")
    parts = {number: part.deflate() for number, part in get_all_nested_objects(message).items()}
    arrived: Any = inflate_object_from_contents(message.object_id, parts)
    return arrived.content


@pytest.mark.parametrize("codec", ["fp32", "bf16", "int8", "int4"])
def test_every_codec_crosses_flowers_serialisation(codec: Codec) -> None:
    sent = content(codec)

    found = unpack(crossed(pack(sent)))

    assert list(found) == list(sent) and list(found[protocol.DELTA]) == list(sent[protocol.DELTA])
    wanted = wire.unpack(sent, protocol.DELTA, codec)
    for name, tensor in wire.unpack(found, protocol.DELTA, codec).items():
        assert torch.equal(tensor, wanted[name]) and tensor.shape == wanted[name].shape
    assert torch.equal(wire.unpack(found, protocol.STATS)["mean"], torch.tensor([7.0, 8.0]))
    assert protocol.read(found)[0].run == "r"


def test_a_record_is_one_array_and_what_is_alike_is_one_object() -> None:
    one, other, made = content(), RecordDict(), {}
    protocol.write(other, protocol.Header(run="r", round=1, partition=1))
    wire.put(other, protocol.DELTA, one[protocol.DELTA])

    packed = [pack(each, made) for each in (one, other)]

    assert [len(each[protocol.DELTA]) for each in packed] == [1, 1]
    assert packed[0][protocol.DELTA] is packed[1][protocol.DELTA]
    assert len(one[protocol.DELTA]) == 3  # left as it was


def test_what_was_not_packed_stays_as_it_is() -> None:
    plain = content()

    assert unpack(plain) is plain and not is_packed(plain) and is_packed(pack(plain))
    assert "packed" not in pack(RecordDict({"told": ConfigRecord({"a": 1})}))


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("[]", "its index speaks of 0"),
        ("no json", "packed in another way"),
        ('[["a","fp32",[2,2],"zk0",9999]]', "'a' is said to end at 9999"),
        ('[["a","fp32",[2,2],"zk0",-4]]', "'a' is said to end at -4"),
        ('[["a","fp32"]]', "packed in another way"),
        ("5", "packed in another way"),
    ],
)
def test_a_false_index_is_refused(index: str, reason: str) -> None:
    packed = pack(content())
    packed["packed"] = ConfigRecord({**packed["packed"], protocol.DELTA: index})

    with pytest.raises(PackingError, match=reason):
        unpack(packed)


def test_a_record_without_an_index_is_refused() -> None:
    packed = pack(content())
    packed["packed"] = ConfigRecord({protocol.DELTA: packed["packed"][protocol.DELTA]})
    assert json.loads(str(packed["packed"][protocol.DELTA]))

    with pytest.raises(PackingError, match=f"'{protocol.STATS}' is packed in another way"):
        unpack(packed)
