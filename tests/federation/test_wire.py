"""Messages carry what was put in, or are refused."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, RecordDict
from flwr.app.message.arraychunk import ArrayChunk

from zk0.federation import protocol, wire
from zk0.federation.protocol import WireError
from zk0.params import Codec, EvaluationParams, TrainingParams

TENSORS = {
    "matrix": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "number": torch.tensor(7.0),
    "half": torch.tensor([0.5], dtype=torch.float16),
    "count": torch.tensor(3, dtype=torch.int64),
    "view": torch.arange(6.0).reshape(2, 3).T,
}
HEADER = protocol.Header(run="abc", round=2, partition=1)


def packed(codec: Codec = "fp32") -> RecordDict:
    content = RecordDict()
    wire.put(content, "delta", wire.encode(TENSORS, codec))
    return content


def test_tensors_come_back_bit_by_bit() -> None:
    found = wire.unpack(packed(), "delta")

    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_record_survives_flowers_own_serialisation() -> None:
    """Over a network a record is cut into chunks and put together again."""
    record = packed("int8").array_records["delta"]

    for name, array in record.items():
        chunks = {key: ArrayChunk.inflate(chunk.deflate()) for key, chunk in array.children.items()}
        found = Array.inflate(array.deflate(), chunks)
        assert (found.dtype, tuple(found.shape), found.stype) == (array.dtype, tuple(array.shape), array.stype), name
        assert found.data == bytes(array.data)


def test_missing_tensors_are_named() -> None:
    with pytest.raises(WireError, match="the message has no tensors 'global'"):
        wire.unpack(packed(), "global")


def test_changed_number_is_noticed() -> None:
    content = packed()
    content.array_records["delta"]["number"].data = np.array(7.1, dtype=np.float32).tobytes()

    with pytest.raises(WireError, match=r"'delta' has digest .* damaged or changed"):
        wire.unpack(content, "delta")


def test_renamed_or_missing_tensor_is_noticed() -> None:
    content = packed()
    record = content.array_records["delta"]
    record["other"] = record.pop("number")

    with pytest.raises(WireError, match="damaged or changed"):
        wire.unpack(content, "delta")


def test_missing_digest_is_noticed() -> None:
    content = packed()
    del content["delta.digest"]

    with pytest.raises(WireError, match="its sender states None"):
        wire.unpack(content, "delta")


def test_bytes_that_are_no_tensor_are_named() -> None:
    content = RecordDict()
    record = wire.encode(TENSORS)
    record["matrix"].data = b"cut off"
    wire.put(content, "delta", record)

    with pytest.raises(WireError, match=r"'delta': tensor 'matrix' has 7 bytes, expected 16 for shape \(2, 2\)"):
        wire.unpack(content, "delta")


def test_another_codec_than_agreed_on_is_refused() -> None:
    with pytest.raises(WireError, match="'delta': tensor 'matrix' is encoded as 'int8', expected 'int4'"):
        wire.unpack(packed("int8"), "delta", "int4")


def test_content_is_freed_as_soon_as_nobody_holds_it() -> None:
    """Not when the garbage collector next looks: an update may be hundreds of megabytes."""
    gc.collect()
    gc.disable()
    try:
        content = packed("int8")
        protocol.write(content, HEADER)
        wire.unpack(content, "delta", "int8")
        protocol.read(content)
        wire.payload_bytes(content)
        watched = weakref.ref(content)
        del content
        assert watched() is None
    finally:
        gc.enable()


def test_payload_counts_all_arrays() -> None:
    content = packed()
    one = wire.payload_bytes(content)
    wire.put(content, "again", wire.encode(TENSORS))

    assert one == sum(t.numel() * t.element_size() for t in TENSORS.values())
    assert wire.payload_bytes(content) == 2 * one


# -- headers -------------------------------------------------------------------------------------


def test_header_and_values_come_back() -> None:
    content = RecordDict()
    protocol.write(content, HEADER, loss=0.25, names=["a"])

    assert protocol.read(content) == (HEADER, {"loss": 0.25, "names": ["a"]})


def test_task_comes_back_as_what_it_was() -> None:
    task = protocol.SiteTask(
        **HEADER.model_dump(),
        seed=1,
        base="random:nano",
        base_digest="d",
        device="cpu",
        training=TrainingParams(batch=3),
        decay_steps=10,
        proximal_mu=0.0,
        evaluation=EvaluationParams(),
    )
    content = RecordDict()
    protocol.write(content, task)

    assert protocol.read(content, protocol.SiteTask)[0] == task


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "the message has no header"),
        (ConfigRecord({"text": "x"}), "the message has no header"),
        (ConfigRecord({"json": "{"}), "header is malformed"),
        (ConfigRecord({"json": "[]"}), "header is malformed"),
        (
            ConfigRecord({"json": '{"run": "a", "round": 1, "partition": 0}'}),
            "a table with a table .values. was expected",
        ),
        (
            ConfigRecord({"json": '{"protocol": 3, "run": "a", "round": "x", "partition": 0, "values": {}}'}),
            "header is malformed",
        ),
        (ConfigRecord({"json": '{"protocol": 3, "run": "a", "round": 1, "values": {}}'}), "header is malformed"),
        (
            ConfigRecord({"json": '{"run": "a", "round": 1, "partition": 0, "values": {}}'}),
            "the message is of protocol 1, and this side speaks 3: server and sites need releases of zk0",
        ),
        (
            ConfigRecord({"json": '{"protocol": 4, "from": "a later release", "values": {}}'}),
            "protocol 4, and this side",
        ),
    ],
)
def test_message_without_a_sound_header_is_refused(record: ConfigRecord | None, said: str) -> None:
    content = RecordDict() if record is None else RecordDict({"header": record})

    with pytest.raises(WireError, match=said):
        protocol.read(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "xyz"}, "the reply is for run xyz, expected abc"),
        ({"round": 1}, "the reply is for round 1, expected 2"),
        ({"partition": 0}, "the reply is for partition 0, expected 1"),
    ],
)
def test_reply_must_be_for_this_run_round_and_site(change: dict[str, Any], said: str) -> None:
    protocol.check_reply(HEADER, HEADER.model_copy())

    with pytest.raises(WireError, match=said):
        protocol.check_reply(HEADER.model_copy(update=change), HEADER)
