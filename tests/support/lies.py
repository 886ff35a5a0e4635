"""What a site may say that is not so: a table, one row a lie; see :class:`lying_federation.Lie`.

These are the lies that a person would think of, and those that were seen to do harm; ``test_lies_of_fields.py`` draws
every field's extremes from the schema.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from lying_federation import Lie, Tell, array_of, failed

from zk0.federation import protocol, wire
from zk0.federation.protocol import HEADER
from zk0.policy.trainable import Tensors

LIES: dict[str, Lie] = {}

DEEP = "[" * 100_000
DIGITS = "9" * 401
ESCAPES = "\x1b[2K\x1b[1Aeverything is well\r\n\n12:00:00 round 3 of 3, held-out loss 0.0001\u202e\x00\x07"
SURROGATE = "\ud800 lone"
LONG = "x" * (8 << 20)
HUGE_BYTES = 3 << 29  # 1.5 GB


def _content(change: Callable[[RecordDict], Any]) -> Tell:
    """The honest reply with its content changed."""

    def tell(reply: Message) -> Message:
        change(reply.content)
        return reply

    return tell


def several(*tells: Tell) -> Tell:
    """One lie after the other, in the same reply."""

    def tell(reply: Message) -> Message:
        for one in tells:
            reply = one(reply)
        return reply

    return tell


# What a header says


def raw(text: Any) -> Tell:
    """The header's JSON is something else."""
    return _content(lambda content: content.update({HEADER: ConfigRecord({"json": text})}))


def fields(change: Callable[[dict[str, Any]], Any]) -> Tell:
    """The header's JSON, changed as a mapping that has its values in ``values``."""

    def spoil(content: RecordDict) -> None:
        found = json.loads(str(content[HEADER]["json"]))
        change(found)
        content[HEADER] = ConfigRecord({"json": json.dumps(found)})

    return _content(spoil)


def values(**changes: Any) -> Tell:
    """Some of the values are others."""
    return fields(lambda found: found["values"].update(changes))


def without(name: str) -> Tell:
    """One of the values is missing."""
    return fields(lambda found: found["values"].pop(name))


def digits(name: str, text: str) -> Tell:
    """One of the values is written as JSON that Python would not write."""

    def spoil(content: RecordDict) -> None:
        found = json.loads(str(content[HEADER]["json"]))
        found["values"][name] = "HERE"
        content[HEADER] = ConfigRecord({"json": json.dumps(found).replace('"HERE"', text)})

    return _content(spoil)


def header(**changes: Any) -> Tell:
    """Another run, round or site."""
    return fields(lambda found: found.update(changes))


def manifest(change: Callable[[dict[str, Any]], Any]) -> Tell:
    """The summary's manifest, changed."""
    return fields(lambda found: change(found["values"]["manifest"]))


def record(name: str, value: Any) -> Tell:
    """A record of the content is another, or is there besides."""
    return _content(lambda content: content.update({name: value}))


def lost(name: str) -> Tell:
    """A record of the content is missing."""
    return _content(lambda content: content.pop(name))


# What tensors say


def tensors(name: str, change: Callable[[Tensors], Any]) -> Tell:
    """The tensors of a record, changed; their digest is that of what is sent, for the site lies well."""

    def spoil(content: RecordDict) -> None:
        found = {key: tensor.clone() for key, tensor in wire.unpack(content, name).items()}
        wire.put(content, name, wire.encode(change(found) or found))

    return _content(spoil)


def moments(**changes: Any) -> Tell:
    """Statistics with other figures: a number fills the whole of a tensor."""

    def change(found: Tensors) -> None:
        for name, value in changes.items():
            found[name] = torch.full_like(found[name], value) if isinstance(value, float) else value(found[name])

    return tensors(protocol.MOMENTS, change)


def array(name: str, **changes: Any) -> Tell:
    """The first array of a record declares another dtype or shape, or holds other bytes."""

    def spoil(content: RecordDict) -> None:
        found = content[name]
        key = next(iter(found))
        one = found[key]
        said = {"dtype": one.dtype, "shape": one.shape, "data": one.data} | changes
        found[key] = array_of(said["dtype"], said["shape"], said["data"])
        wire.put(content, name, found)

    return _content(spoil)


def _huge() -> Any:
    """1.5 GB that take no memory until somebody reads them."""
    return memoryview(mmap.mmap(-1, HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def huge(name: str) -> Tell:
    """One array more than there is, of 1.5 GB."""

    def spoil(content: RecordDict) -> None:
        content[name]["more"] = array_of("fp32", (HUGE_BYTES // 4,), _huge())

    return _content(spoil)


def huge_in_place(name: str) -> Tell:
    """One of the arrays is 1.5 GB long, as it declares."""

    def spoil(content: RecordDict) -> None:
        key = next(iter(content[name]))
        content[name][key] = array_of(content[name][key].dtype, (HUGE_BYTES // 4,), _huge())

    return _content(spoil)


def _huge_record(content: RecordDict) -> None:
    """A record of arrays that nobody asked for."""
    content["more"] = ArrayRecord()
    content["more"]["more"] = array_of("fp32", (HUGE_BYTES // 4,), _huge())


def many(name: str) -> Tell:
    """Ten thousand arrays without a value."""

    def spoil(content: RecordDict) -> None:
        for number in range(10_000):
            content[name][f"more{number}"] = array_of("fp32", (0,), b"")
        wire.put(content, name, content[name])

    return _content(spoil)


# The table

_SHORT = {
    protocol.SUMMARY: "summary",
    protocol.STATISTICS: "statistics",
    protocol.TRAIN: "train",
    protocol.EVALUATE: "evaluate",
}
FIRST = {protocol.SUMMARY: 0, protocol.STATISTICS: 0, protocol.TRAIN: 1, protocol.EVALUATE: 1}
_RECORDS = {protocol.STATISTICS: protocol.MOMENTS, protocol.TRAIN: protocol.DELTA}
_NUMBERS = {
    protocol.TRAIN: ("examples", "train_loss", "train_s", "learning_rate"),
    protocol.EVALUATE: ("frames", "held_out_loss", "evaluate_s"),
}


def _refused(kind: str, reason: str, **lies: Tell) -> None:
    for name, tell in lies.items():
        LIES[f"{_SHORT[kind]}-{name.replace('_', '-')}"] = Lie(kind, tell, reason, FIRST[kind])


def _harmless(kind: str, **lies: Tell) -> None:
    for name, tell in lies.items():
        LIES[f"{_SHORT[kind]}-{name.replace('_', '-')}"] = Lie(kind, tell, None, FIRST[kind])


# Every kind of reply is read in one place, so most of what is wrong with a header or an array is tried on one of them.

for _kind in _SHORT:
    _refused(_kind, "header", header_deep=raw(DEEP), header_null=raw("null"), no_header=lost(HEADER))
    _refused(_kind, "values", values_a_list=fields(lambda found: found.update(values=[1, 2])))
    _refused(_kind, "partition", partition_of_another=header(partition=1))
    _refused(_kind, "the site failed", error_long=failed(LONG), error_escapes=failed(ESCAPES))
    _refused(_kind, "'more'", records_more=record("more", ConfigRecord({"a": "b"})))
    _harmless(_kind, values_more=values(admin={"deep": [[[1]]]}, **{ESCAPES: ESCAPES}))

_refused(
    protocol.TRAIN,
    "header",
    header_deep_objects=raw('{"a":' * 100_000),
    header_long=raw(json.dumps({"run": LONG})),
    header_a_list=raw("[]"),
    header_text=raw('"run"'),
    header_no_json=raw("run: 1"),
    header_empty=raw(""),
    header_bytes=raw(b"\xff\xfe"),
    header_number=raw(7),
    header_texts=raw(["{}"]),
    header_of_metrics=record(HEADER, MetricRecord({"json": 1.0})),
    header_of_arrays=record(HEADER, ArrayRecord()),
)
_refused(protocol.TRAIN, "admin", header_more=header(admin=True))
_refused(
    protocol.TRAIN,
    "values",
    values_null=fields(lambda found: found.update(values=None)),
    values_missing=fields(lambda found: found.pop("values")),
)
_refused(
    protocol.TRAIN,
    "round",
    other_round=header(round=7),
    round_in_401_digits=header(round=10**400),
    round_a_text=header(round="1"),
    round_null=header(round=None),
    round_true=header(round=True),
    round_missing=fields(lambda found: found.pop("round")),
)
_refused(protocol.TRAIN, "partition", partition_a_list=header(partition=[0]))
_refused(protocol.TRAIN, "header", run_surrogate=header(run=SURROGATE))
_refused(protocol.TRAIN, "run", other_run=header(run="0" * 16))
_refused(
    protocol.TRAIN,
    "the site failed",
    error_surrogate=failed(SURROGATE),
    error_empty=failed(""),
    error_marked=failed("{0} %s [bold red]{name}[/] ${HOME}"),
    error_code=failed("mine", 2**31 - 1),
    # A site cannot speak as the server does of a site that is gone.
    error_posing=failed("its node is away. Left out: kitchen: the reply's train_loss is nan"),
)

for _kind, _record in _RECORDS.items():
    _refused(
        _kind,
        f"'{_record}'",
        no_tensors=lost(_record),
        digest_missing=lost(f"{_record}.digest"),
        digest_false=record(f"{_record}.digest", ConfigRecord({"digest": "0" * 32})),
        shape_endless=array(_record, shape=(float("inf"),)),
        shape_of_nothing=array(_record, shape=(0, 10**30)),
        dtype_bf16=array(_record, dtype="torch.bfloat16"),
        data_short=array(_record, data=b"\0"),
        tensor_more=tensors(_record, lambda found: found | {"more": torch.zeros(1)}),
        tensor_less=tensors(_record, lambda found: dict(list(found.items())[1:])),
        tensor_huge=huge(_record),
        tensor_huge_in_place=huge_in_place(_record),
    )
    _refused(_kind, "'more'", record_huge=_content(_huge_record))

_refused(
    protocol.TRAIN,
    "'delta'",
    tensors_of_text=record(protocol.DELTA, ConfigRecord({"a": "b"})),
    digest_of_arrays=record("delta.digest", ArrayRecord()),
    digest_long=record("delta.digest", ConfigRecord({"digest": LONG})),
    digest_escapes=record("delta.digest", ConfigRecord({"digest": ESCAPES})),
    digest_bytes=record("delta.digest", ConfigRecord({"digest": b"\xff"})),
    shape_vast=array(protocol.DELTA, shape=(10**30,)),
    shape_negative=array(protocol.DELTA, shape=(-1, 6)),
    shape_deep=array(protocol.DELTA, shape=(1,) * 10_000),
    shape_of_text=array(protocol.DELTA, shape=("6",)),
    shape_not_a_number=array(protocol.DELTA, shape=(float("nan"),)),
    shape_of_null=array(protocol.DELTA, shape=(None,)),
    shape_of_lists=array(protocol.DELTA, shape=([6],)),
    dtype_unknown=array(protocol.DELTA, dtype="complex64"),
    dtype_long=array(protocol.DELTA, dtype=LONG),
    dtype_escapes=array(protocol.DELTA, dtype=ESCAPES),
    dtype_a_list=array(protocol.DELTA, dtype=["fp32"]),
    data_empty=array(protocol.DELTA, data=b""),
    name_escapes=tensors(protocol.DELTA, lambda found: {f"{ESCAPES}{key}": value for key, value in found.items()}),
    name_long=tensors(protocol.DELTA, lambda found: found | {LONG: torch.zeros(1)}),
    name_surrogate=_content(lambda content: content["delta"].update({SURROGATE: array_of("fp32", (1,), bytes(4))})),
    tensors_many=many(protocol.DELTA),
    turned=tensors(
        protocol.DELTA, lambda found: {k: t.mT.contiguous() if t.ndim == 2 else t for k, t in found.items()}
    ),
    flat=tensors(protocol.DELTA, lambda found: {k: t.reshape(-1) for k, t in found.items()}),
    double=tensors(protocol.DELTA, lambda found: {k: t.double() for k, t in found.items()}),
    in_int8=_content(lambda c: wire.put(c, protocol.DELTA, wire.encode(wire.unpack(c, protocol.DELTA), "int8"))),
)


def _first(change: Callable[[torch.Tensor], Any]) -> Tell:
    def spoil(found: Tensors) -> None:
        change(next(iter(found.values())))

    return tensors(protocol.DELTA, spoil)


_refused(
    protocol.TRAIN,
    "update is refused",
    not_a_number=_first(lambda tensor: tensor.view(-1)[:2].fill_(float("nan"))),
    infinite=_first(lambda tensor: tensor.view(-1)[:1].fill_(float("inf"))),
    all_3e38=tensors(protocol.DELTA, lambda found: {k: torch.full_like(t, 3e38) for k, t in found.items()}),
    all_1e18=tensors(protocol.DELTA, lambda found: {k: torch.full_like(t, 1e18) for k, t in found.items()}),
    one_1e30=_first(lambda tensor: tensor.view(-1)[:1].fill_(1e30)),
)
_refused(protocol.TRAIN, "lacks|delta", lacks_for_ever=values(lacks="abc"), lacks_a_list=values(lacks=[1]))
_refused(protocol.EVALUATE, "lacks", lacks_escapes=values(lacks=ESCAPES), lacks_long=values(lacks="x" * 1000))

for _kind, _names in _NUMBERS.items():
    for _name in _names:
        _refused(
            _kind,
            _name,
            **{
                f"{_name}_nan": digits(_name, "NaN"),
                f"{_name}_1e999": digits(_name, "1e999"),
                f"{_name}_401_digits": digits(_name, DIGITS),
                f"{_name}_missing": without(_name),
                f"{_name}_true": values(**{_name: True}),
                f"{_name}_negative": values(**{_name: -1e6}),
                f"{_name}_1e308": values(**{_name: 1e308}),
            },
        )
    _refused(_kind, "header", value_surrogate=values(**{_names[1]: SURROGATE}))
_refused(protocol.TRAIN, "examples", no_examples=values(examples=0), examples_half=values(examples=0.5))
_refused(protocol.TRAIN, "epsilon", epsilon_negative=values(epsilon=-1.0), epsilon_nan=digits("epsilon", "NaN"))
_refused(
    protocol.EVALUATE,
    "frames",
    frames_0=values(frames=0),
    frames_1e12=values(frames=10**12),
    frames_half=values(frames=0.5),
)

# Summaries

_refused(
    protocol.SUMMARY,
    "manifest",
    fps_in_401_digits=manifest(lambda found: found.update(fps=10**400)),
    fps_0=manifest(lambda found: found.update(fps=0)),
    manifest_a_list=values(manifest=[]),
    manifest_null=values(manifest=None),
    manifest_missing=without("manifest"),
    field_missing=manifest(lambda found: found.pop("cameras")),
    field_more=manifest(lambda found: found.update(admin=True)),
    frames_negative=manifest(lambda found: found.update(train_frames=-1)),
    frames_1e12=manifest(lambda found: found.update(train_frames=10**12)),
    frames_infinite=manifest(lambda found: found.update(train_frames=float("inf"))),
    episodes_overlap=manifest(lambda found: found.update(held_out_episodes=found["train_episodes"])),
    episodes_negative=manifest(lambda found: found.update(train_episodes=[-1])),
    no_episodes=manifest(lambda found: found.update(train_episodes=[])),
    tasks_many=manifest(lambda found: found.update(tasks=[f"task {n}" for n in range(10_001)])),
    joints_many=manifest(lambda found: found.update(joints=[f"joint{n}.pos" for n in range(1000)])),
    digest_long=manifest(lambda found: found.update(digest="x" * 100_000)),
    camera_shape=manifest(lambda found: found.update(image_shapes={c: [3, 10**30, 1] for c in found["cameras"]})),
    cameras_many=manifest(lambda found: found.update(cameras=[f"observation.images.c{n}" for n in range(1000)])),
    every_0=manifest(lambda found: found.update(every=0)),
    joint_map_wild=manifest(lambda found: found.update(joint_map={"a": 1e308})),
)
_refused(
    protocol.SUMMARY,
    "header",
    tasks_long=manifest(lambda found: found.update(tasks=[LONG])),
    tasks_surrogate=manifest(lambda found: found.update(tasks=[SURROGATE])),
)
_harmless(
    protocol.SUMMARY,
    camera_unshaped=manifest(lambda found: found.update(image_shapes={})),
    other_camera_size=manifest(lambda found: found.update(image_shapes={c: [3, 9, 9] for c in found["cameras"]})),
    other_name=manifest(lambda found: found.update(site=ESCAPES)),
    other_partition=manifest(lambda found: found.update(partition=3)),
    tasks_escaped=manifest(lambda found: found.update(tasks=[ESCAPES], source=ESCAPES, repo_id=ESCAPES)),
)
# What one site says of its arm must not keep the others from training.
_refused(
    protocol.SUMMARY,
    "most sites have other|camera",
    other_robot=manifest(lambda found: found.update(robot_type="panda")),
    other_rate=manifest(lambda found: found.update(fps=50)),
    joints_3=manifest(lambda found: found.update(joints=found["joints"][:3])),
    other_joints=manifest(lambda found: found.update(joints=[f"{name}x" for name in found["joints"]])),
    strange_camera=manifest(
        lambda found: found.update(
            cameras=["observation.images.side"],
            camera_sources={"observation.images.side": "observation.images.side"},
            image_shapes={"observation.images.side": [3, 96, 96]},
        )
    ),
    camera_missing=manifest(lambda found: found.update(cameras=found["cameras"][:1])),
)

# Statistics


def _each(change: Callable[[torch.Tensor], torch.Tensor]) -> Tell:
    """All but the count, which is no vector."""
    return tensors(protocol.MOMENTS, lambda found: {k: change(t) if t.ndim else t for k, t in found.items()})


_refused(
    protocol.STATISTICS,
    "statistics",
    limits_wild=moments(low=-1e9, high=1e9, step=1e9, change=1e9),
    low_wild=moments(low=-1e9),
    high_wild=moments(high=1e9),
    step_wild=moments(step=1e9),
    change_wild=moments(change=1e9),
    count_1e9=moments(count=1e9),
    count_0=moments(count=0.0),
    count_negative=moments(count=-5.0),
    count_nan=moments(count=float("nan")),
    count_another=moments(count=lambda count: count + 1),
    m2_1e20=moments(m2_state=1e20, m2_action=1e20),
    m2_negative=moments(m2_state=-1.0),
    m2_infinite=moments(m2_action=float("inf")),
    mean_outside=moments(mean_state=lambda mean: mean + 500),
    mean_nan=moments(mean_action=float("nan")),
    low_over_high=moments(low=lambda low: low + 400),
    step_negative=moments(step=-1.0),
    step_over_range=moments(step=300.0),
    change_negative=moments(change=-1.0),
)
_refused(
    protocol.STATISTICS,
    "'moments'",
    joints_3=_each(lambda tensor: tensor[:3]),
    joints_7=_each(lambda tensor: torch.cat([tensor, tensor[:1]])),
    joints_differ=tensors(protocol.MOMENTS, lambda found: found | {"m2_state": found["m2_state"][:5]}),
    no_joints=_each(lambda tensor: tensor[:0]),
    matrices=_each(lambda tensor: tensor.reshape(1, -1)),
    in_bf16=_each(lambda tensor: tensor.to(torch.bfloat16)),
    in_int64=_each(lambda tensor: tensor.to(torch.int64)),
    in_fp32=_each(lambda tensor: tensor.to(torch.float32)),
)
