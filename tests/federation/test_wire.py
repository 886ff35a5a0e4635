"""Messages carry what was put in, or are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, RecordDict

from zk0.federation import protocol
from zk0.federation.wire import WireError, pack, payload_bytes, unpack
from zk0.params import EvaluationParams, TrainingParams

TENSORS = {
    "matrix": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "number": torch.tensor(7.0),
    "half": torch.tensor([0.5], dtype=torch.float16),
    "count": torch.tensor(3, dtype=torch.int64),
    "view": torch.arange(6.0).reshape(2, 3).T,
}
HEADER = protocol.Header(run="abc", round=2, partition=1)


def packed() -> RecordDict:
    content = RecordDict()
    pack(content, "delta", TENSORS)
    return content


def test_tensors_come_back_bit_by_bit() -> None:
    found = unpack(packed(), "delta")

    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_received_tensors_can_be_changed() -> None:
    unpack(packed(), "delta")["matrix"].add_(1)

    assert TENSORS["matrix"][0, 0] == 1.0


def test_missing_tensors_are_named() -> None:
    with pytest.raises(WireError, match="the message has no tensors 'global'"):
        unpack(packed(), "global")


def test_changed_number_is_noticed() -> None:
    content = packed()
    content.array_records["delta"]["number"] = Array(np.array(7.1, dtype=np.float32))

    with pytest.raises(WireError, match=r"'delta' has digest .* damaged or changed"):
        unpack(content, "delta")


def test_renamed_or_missing_tensor_is_noticed() -> None:
    content = packed()
    record = content.array_records["delta"]
    record["other"] = record.pop("number")

    with pytest.raises(WireError, match="damaged or changed"):
        unpack(content, "delta")


def test_missing_digest_is_noticed() -> None:
    content = packed()
    del content["delta.digest"]

    with pytest.raises(WireError, match="its sender states None"):
        unpack(content, "delta")


def test_bytes_that_are_no_array_are_named() -> None:
    content = packed()
    content.array_records["delta"]["half"] = Array("float16", (1,), "numpy.ndarray", b"\x93NUMPY cut off")

    with pytest.raises(WireError, match="'delta': tensor 'half' cannot be read"):
        unpack(content, "delta")


def test_payload_counts_all_arrays() -> None:
    content = packed()
    one = payload_bytes(content)
    pack(content, "again", TENSORS)

    assert one >= sum(t.numel() * t.element_size() for t in TENSORS.values())
    assert payload_bytes(content) == 2 * one


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
        (ConfigRecord({"json": '{"run": "a", "round": 1, "partition": 0}'}), "header is malformed: 'values'"),
        (ConfigRecord({"json": '{"run": "a", "round": "x", "partition": 0, "values": {}}'}), "header is malformed"),
        (ConfigRecord({"json": '{"run": "a", "round": 1, "values": {}}'}), "header is malformed"),
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"held_out_loss": float("nan")}, "the reply's held_out_loss is nan, expected a finite number"),
        ({"held_out_loss": None}, "the reply's held_out_loss is None, expected a finite number"),
        ({"evaluate_s": "fast"}, "the reply's evaluate_s is fast, expected a finite number"),
        ({"frames": True}, "the reply's frames is True, expected a finite number"),
        ({"frames": 0}, "the reply's frames is 0, expected a number above 0"),
    ],
)
def test_reply_must_tell_what_is_averaged(change: dict[str, Any], said: str) -> None:
    values = {"frames": 10, "held_out_loss": 0.5, "evaluate_s": 1.0}
    protocol.check_values(protocol.EVALUATE, values)
    protocol.check_values(protocol.SUMMARY, {})

    with pytest.raises(WireError, match=said):
        protocol.check_values(protocol.EVALUATE, values | change)
