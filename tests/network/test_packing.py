"""Many tensors as one, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from zk0.federation import protocol, wire
from zk0.network.packing import PackingError, is_packed, pack, unpack
from zk0.network.server.pulling import Refused, joined
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
        ('[["a","fp32",[1e999],"zk0",16]]', "0.2.0 is inf: expected a valid integer"),
        ('[["a","fp32",[-1],"zk0",16]]', "0.2.0 is -1: expected greater than or equal to 0"),
        ('[["a","fp32",[0,1000000000000000000000000000000],"zk0",16]]', "0.2.1 is an integer of 100 bits"),
        ('[["a","fp32",[true],"zk0",16]]', "0.2.0 is True: expected a valid integer"),
        (f'[["{"x" * 10**6}","fp32",[1],"zk0",16]]', "should have at most 1000 characters"),
        ('[["a","fp32",[1],"zk0",16]]'.replace("16", "9" * 401), "is an integer of 1333 bits"),
        ("[" * 100_000, "recursion limit exceeded"),
        ("[" + '["a","fp32",[1],"zk0",0],' * 200_000 + "[]]", "at most 100000 items"),
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


def parts_of(sent: RecordDict) -> tuple[str, dict[str, bytes]]:
    """A message as a SuperLink hands it out."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(sent, 2, "train")
    return message.object_id, {number: one.deflate() for number, one in get_all_nested_objects(message).items()}


def changed(parts: dict[str, bytes], kind: str, change: Callable[[Any], Any]) -> dict[str, bytes]:
    """The same parts, where all of one kind say something else."""
    found = {}
    for number, part in parts.items():
        head, _, body = part.partition(b"\0")
        if head.startswith(f"{kind} ".encode()):
            body = json.dumps(change(json.loads(body))).encode()
            head = b" ".join([*head.split(b" ")[:2], str(len(body)).encode()])
        found[number] = head + b"\0" + body
    return found


def test_what_a_reply_expands_to_is_counted_before_it_is_joined() -> None:
    """One chunk that an array names 300 times: 5 MB become 1.5 GB."""
    zeros = torch.zeros(5 << 18)
    sent = RecordDict()
    wire.put(sent, protocol.DELTA, wire.encode({"zeros": zeros}))
    number, parts = parts_of(pack(sent))
    many = changed(parts, "Array", lambda told: told | {"arraychunk_ids": [0] * 300})

    with pytest.raises(Refused, match=r"its reply would be 1572864000 bytes of tensors; at most 5242880 were expected"):
        joined(number, many, 5 << 20)

    assert len(joined(number, parts, 5 << 20).content[protocol.DELTA]["all"].data) == 5 << 20


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("Array", lambda told: told | {"arraychunk_ids": [-1]}, "names a chunk that is not its own"),
        ("Array", lambda told: told | {"arraychunk_ids": [True]}, "names a chunk that is not its own"),
        ("Array", lambda told: told | {"arraychunk_ids": None}, "what it sent is malformed"),
        ("Array", lambda told: told | {"shape": [1e999]}, "what it sent is malformed"),
        ("Array", lambda told: [told], "what it sent is malformed"),
        ("Array", lambda told: told | {"dtype": "x" * (5 << 20)}, "bytes besides tensors"),
        ("ArrayRecord", lambda told: [], "what it sent is malformed"),
        ("RecordDict", lambda told: dict.fromkeys(told, "x"), "what it sent is malformed"),
    ],
)
def test_a_malformed_reply_is_refused(kind: str, change: Callable[[Any], Any], reason: str) -> None:
    number, parts = parts_of(pack(content()))

    with pytest.raises(Refused, match=reason):
        joined(number, changed(parts, kind, change), 1 << 20)


def test_a_part_that_is_no_part_is_refused() -> None:
    number, parts = parts_of(pack(content()))

    for part in (b"", b"\0", b"Message", b"Message x\0", bytes(100), b"Array \xff 1\0{}"):
        with pytest.raises(Refused, match="what it sent is malformed"):
            joined(number, {**parts, number: part}, 1 << 20)


def test_what_is_no_message_is_refused() -> None:
    _, parts = parts_of(pack(content()))
    number = next(number for number, part in parts.items() if part.startswith(b"RecordDict"))

    with pytest.raises(Refused, match="what it sent is no message"):
        joined(number, parts, 1 << 20)
