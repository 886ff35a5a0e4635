"""Codecs against a reader's arithmetic, on edge cases, and on the small policy's own tensors."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from zk0.federation.codecs import (
    CODECS,
    Codec,
    CodecError,
    Encoded,
    codec_named,
    decode_all,
    encode_all,
    encode_with_error,
)
from zk0.policy.trainable import TensorMismatch, Tensors

INT8, INT4, BF16, FP32 = (codec_named(name) for name in ("int8", "int4", "bf16", "fp32"))
LOSSY = [BF16, INT8, INT4]
BLOCKS = [INT8, INT4]
by_name = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
lossy = pytest.mark.parametrize("codec", LOSSY, ids=[codec.name for codec in LOSSY])
blocks = pytest.mark.parametrize("codec", BLOCKS, ids=[codec.name for codec in BLOCKS])


def gaussian(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def there_and_back(codec: Codec, tensor: torch.Tensor) -> torch.Tensor:
    return codec.decode("w", codec.encode("w", tensor).payload, tensor.shape)


# -- values -------------------------------------------------------------------------------------


def test_int8_is_absmax_over_127() -> None:
    """With a largest value of 127 the scale is 1, so whole numbers stay and halves go to even."""
    tensor = torch.tensor([127.0, -127.0, 3.0, 0.5, 1.5, -2.4, 0.0])

    encoded = INT8.encode("w", tensor)

    unit, scale = struct.unpack("<fe", encoded.payload[:6])
    assert unit * scale == 1.0
    assert np.frombuffer(encoded.payload[6:], np.int8).tolist() == [127, -127, 3, 0, 2, -2, 0]
    assert there_and_back(INT8, tensor).tolist() == [127.0, -127.0, 3.0, 0.0, 2.0, -2.0, 0.0]


def test_int4_holds_two_values_a_byte() -> None:
    """A lone block of five: the first three in the lower halves, the last two in the upper ones, each plus 8."""
    tensor = torch.tensor([7.0, -7.0, 1.0, 2.6, -3.0])

    encoded = INT4.encode("w", tensor)

    assert list(encoded.payload[6:]) == [7 + 8 + 16 * (3 + 8), -7 + 8 + 16 * (-3 + 8), 1 + 8 + 16 * 8]
    assert there_and_back(INT4, tensor).tolist() == [7.0, -7.0, 1.0, 3.0, -3.0]


@blocks
def test_each_block_has_its_own_scale(codec: Codec) -> None:
    block = 256 if codec is INT8 else 64
    tensor = torch.cat([torch.full((block,), 1e-3), torch.full((block,), 1e3), torch.tensor([-2.0])])

    decoded = there_and_back(codec, tensor)

    torch.testing.assert_close(decoded, tensor, rtol=2**-11, atol=0)


def test_payload_is_unit_scales_and_integers() -> None:
    assert INT8.payload_bytes(2 * 256 + 1) == 4 + 3 * 2 + 513
    assert INT4.payload_bytes(2 * 64 + 1) == 4 + 3 * 2 + 65


def test_bf16_rounds_to_nearest_even() -> None:
    """Beside 1 the bf16 numbers are 2**-7 apart."""
    tensor = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 1 + 2**-9, -(1 + 2**-8)])

    assert there_and_back(BF16, tensor).tolist() == [1.0, 1 + 2**-6, 1 + 2**-7, 1.0, -1.0]


@pytest.mark.parametrize(
    ("codec", "bits", "error"), [(FP32, 32, 0), (BF16, 16, 0.0018), (INT8, 8.1, 0.0075), (INT4, 4.3, 0.112)]
)
def test_bits_and_error_on_gaussian_values(codec: Codec, bits: float, error: float) -> None:
    tensor = gaussian(1000, 300)

    encoded = codec.encode("w", tensor)
    decoded = codec.decode("w", encoded.payload, tensor.shape)

    assert len(encoded.payload) == codec.payload_bytes(tensor.numel())
    assert 8 * len(encoded.payload) / tensor.numel() <= bits
    assert float((decoded - tensor).norm() / tensor.norm()) <= error


@blocks
@pytest.mark.parametrize("size", [0, 1, 2, 3, 63, 64, 65, 127, 255, 256, 257, 511, 512, 513, 262144, 262145, 300_001])
def test_every_size_and_its_last_block(codec: Codec, size: int) -> None:
    """Half a scale is the largest error, whatever is left for the last block or the last cache-sized piece."""
    levels, block = (127, 256) if codec is INT8 else (7, 64)
    tensor = gaussian(size)

    decoded = there_and_back(codec, tensor)

    assert decoded.shape == tensor.shape
    for values, found in zip(tensor.split(block), decoded.split(block), strict=True):
        if len(values):
            limit = float(values.abs().max()) / levels * (0.5 + levels * 2**-11 * 1.01)
            assert float((values - found).abs().max()) <= limit


@by_name
def test_shapes(codec: Codec) -> None:
    for shape in ((), (3,), (2, 0), (5, 7, 2)):
        tensor = gaussian(*shape)
        assert there_and_back(codec, tensor).shape == shape
    across = gaussian(40, 30).T
    assert torch.equal(there_and_back(codec, across), there_and_back(codec, across.contiguous()))


@blocks
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-8, 1.0, 1e8, 1e30])
def test_precision_does_not_depend_on_the_size_of_the_update(codec: Codec, scale: float) -> None:
    """Float16 scales alone would overflow at 65504 and vanish below 6e-8."""
    tensor = gaussian(4096)
    power = 2.0 ** round(math.log2(scale))

    assert torch.equal(there_and_back(codec, tensor * power), there_and_back(codec, tensor) * power)


@blocks
def test_largest_float32_values_survive(codec: Codec) -> None:
    largest = torch.finfo(torch.float32).max
    tensor = torch.tensor([largest, -largest / 2, 0.0])

    if codec is INT8:
        decoded = there_and_back(codec, tensor * 0.99)
        torch.testing.assert_close(decoded, tensor * 0.99, rtol=0.01, atol=0)
    else:
        decoded = there_and_back(codec, tensor * 0.8)
        torch.testing.assert_close(decoded, tensor * 0.8, rtol=0.2, atol=0)


@blocks
def test_zero_and_tiny_blocks_are_zeros(codec: Codec) -> None:
    """A block 2**28 times smaller than the largest, a tensor of subnormals, a tensor of zeros."""
    ordinary, tiny = torch.ones(256), torch.full((256,), 2.0**-40)

    decoded = there_and_back(codec, torch.cat([ordinary, tiny, torch.zeros(256)]))

    assert decoded[:256].min() > 0.999
    assert not decoded[256:].any()
    assert not there_and_back(codec, torch.full((10,), 1e-44)).any()
    assert not there_and_back(codec, torch.zeros(10)).any()


@by_name
def test_same_bytes_each_time_and_input_untouched(codec: Codec) -> None:
    tensor = gaussian(70_000)
    before = tensor.clone()

    first, again = (bytes(codec.encode("w", tensor).payload) for _ in range(2))

    assert first == again
    assert torch.equal(tensor, before)


def test_fp32_is_a_view_both_ways() -> None:
    tensor = gaussian(3, 2)

    decoded = there_and_back(FP32, tensor)

    assert decoded.data_ptr() == tensor.data_ptr()


@by_name
def test_into_a_given_tensor(codec: Codec) -> None:
    tensor, out = gaussian(10, 13), torch.empty(10, 13)

    decoded = codec.decode("w", codec.encode("w", tensor).payload, tensor.shape, out=out)

    assert decoded.data_ptr() == out.data_ptr()
    assert torch.equal(out, there_and_back(codec, tensor))


@by_name
def test_any_buffer_will_do(codec: Codec) -> None:
    """Flower hands out bytes, read-only and at any address."""
    tensor = gaussian(100)
    payload = bytes(codec.encode("w", tensor).payload)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [
            codec.decode("w", buffer, tensor.shape)
            for buffer in (payload, bytearray(payload), memoryview(b"x" + payload)[1:])
        ]

    assert all(torch.equal(result, there_and_back(codec, tensor)) for result in results)


def test_idempotent_on_its_own_output() -> None:
    """What bf16 has rounded once it does not change again."""
    once = there_and_back(BF16, gaussian(1000))

    assert torch.equal(there_and_back(BF16, once), once)


# -- bad input ----------------------------------------------------------------------------------


@lossy
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 299_999])
def test_non_finite_values_are_refused_by_name(codec: Codec, bad: float, at: int) -> None:
    tensor = torch.zeros(300_000)
    tensor[at] = bad

    with pytest.raises(TensorMismatch, match=r"tensor 'head\.weight' has 1 non-finite values of 300000"):
        codec.encode("head.weight", tensor)


def test_what_bf16_would_round_to_infinity_is_refused() -> None:
    just_below = torch.tensor([3.3895e38])
    assert there_and_back(BF16, just_below).item() == pytest.approx(3.3895e38, rel=1e-3)

    with pytest.raises(TensorMismatch, match="tensor 'w in bf16' has 1 non-finite values of 2"):
        BF16.encode("w", torch.tensor([3.402e38, 0.0]))


@by_name
@pytest.mark.parametrize("change", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: b""])
def test_payload_of_another_length(codec: Codec, change: Callable[[bytes], bytes]) -> None:
    payload = change(bytes(codec.encode("w", gaussian(10, 10)).payload))
    expected = codec.payload_bytes(100)

    with pytest.raises(CodecError, match=rf"tensor 'w' has {len(payload)} bytes, expected {expected} .*\(10, 10\)"):
        codec.decode("w", payload, (10, 10))


@by_name
def test_shape_that_no_tensor_has(codec: Codec) -> None:
    with pytest.raises(CodecError, match=r"tensor 'w' has shape \(-2, -2\)"):
        codec.decode("w", codec.encode("w", gaussian(4)).payload, (-2, -2))


@blocks
@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_scale_that_is_none(codec: Codec, scale: float) -> None:
    payload = bytearray(codec.encode("w", gaussian(300)).payload)
    payload[6:8] = struct.pack("<e", scale)

    with pytest.raises(CodecError, match="tensor 'w' has a scale that is negative or not finite"):
        codec.decode("w", payload, (300,))


@blocks
@pytest.mark.parametrize("unit", [-1.0, math.nan, math.inf, 3e38])
def test_unit_that_is_none(codec: Codec, unit: float) -> None:
    payload = bytearray(codec.encode("w", gaussian(300)).payload)
    payload[:4] = struct.pack("<f", unit)

    with pytest.raises(CodecError, match="tensor 'w' has a scale that is negative or not finite"):
        codec.decode("w", payload, (300,))


def test_unknown_codec_suggests_the_nearest() -> None:
    with pytest.raises(CodecError, match="there is no codec 'int88'; did you mean 'int8'"):
        codec_named("int88")


# -- many tensors -------------------------------------------------------------------------------


@by_name
def test_tensors_by_name(codec: Codec) -> None:
    """What is not float32 travels as it is, whatever the codec."""
    tensors = {
        "w": gaussian(100, 3),
        "half": gaussian(5).half(),
        "brain": gaussian(2, 2).bfloat16(),
        "count": torch.tensor(7),
        "exact": gaussian(3).double(),
        "byte": torch.tensor([-3, 3], dtype=torch.int8),
    }

    decoded = decode_all(codec, encode_all(codec, tensors))

    assert {name: tensor.dtype for name, tensor in decoded.items()} == {n: t.dtype for n, t in tensors.items()}
    assert torch.equal(decoded.pop("w"), there_and_back(codec, tensors.pop("w")))
    assert all(torch.equal(decoded[name], tensor) for name, tensor in tensors.items())


def test_dtype_that_cannot_travel() -> None:
    with pytest.raises(CodecError, match=r"tensor 'z' is torch.complex64; what can travel is torch.float32, torch.flo"):
        encode_all(INT8, {"z": torch.zeros(2, dtype=torch.complex64)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.update(w=INT4.encode("w", gaussian(2, 3))), "'w' is encoded as 'int4', expected"),
        (lambda e: e.update(w=FP32.encode("w", gaussian(2, 3))), "'w' is encoded as 'fp32', expected"),
        (lambda e: e.update(w=replace(e["w"], form="torch.float32")), "encoded as 'torch.float32'"),
        (lambda e: e.update(w=replace(e["w"], payload=b"123")), "tensor 'w' has 3 bytes"),
        (lambda e: e.update(b=Encoded("torch.float64", (4,), b"1")), "tensor 'b' has 1 byte"),
    ],
)  # fmt: skip
def test_another_codecs_or_a_damaged_tensor_is_refused(
    change: Callable[[dict[str, Encoded]], object], said: str
) -> None:
    encoded = encode_all(INT8, {"w": gaussian(2, 3), "b": gaussian(4)})
    change(encoded)

    with pytest.raises(CodecError, match=said):
        decode_all(INT8, encoded)


# -- error feedback -----------------------------------------------------------------------------


@lossy
def test_what_is_decoded_and_what_is_left_make_what_was_to_be_sent(codec: Codec) -> None:
    """To the last bit of float32."""
    update, before = {"w": gaussian(1000)}, {"w": gaussian(1000, seed=2) * 1e-3}
    kept, wanted = before["w"].clone(), update["w"] + before["w"]

    encoded, left = encode_with_error(codec, update, before)

    assert torch.equal(left["w"], wanted - decode_all(codec, encoded)["w"])
    assert torch.equal(before["w"], kept)
    assert left["w"] is update["w"]


@lossy
def test_no_error_is_lost_over_rounds(start: Tensors, codec: Codec) -> None:
    """On the small policy's tensors: the sum of what arrives is the sum of what was sent, less what is left."""
    sent = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    arrived = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    residual: Tensors = {}
    for step in range(1, 6):
        update = {name: tensor * (1e-3 / step) for name, tensor in start.items()}
        for name, tensor in update.items():
            sent[name] += tensor
        encoded, residual = encode_with_error(codec, update, residual)
        for name, tensor in decode_all(codec, encoded).items():
            arrived[name] += tensor

    for name, tensor in sent.items():
        torch.testing.assert_close(arrived[name] + residual[name], tensor, rtol=1e-5, atol=1e-9)


def test_small_steady_updates_arrive_in_the_end() -> None:
    """Beside 7 a step of 0.2 is rounded away, each time; with its error kept a fifth of the rounds carry it."""
    residual: Tensors = {}
    arrived = torch.zeros(2)
    for _ in range(50):
        encoded, residual = encode_with_error(INT4, {"w": torch.tensor([7.0, 0.2])}, residual)
        arrived += decode_all(INT4, encoded)["w"]

    assert arrived[1].item() == pytest.approx(10.0, abs=0.51)
    assert not there_and_back(INT4, torch.tensor([7.0, 0.2]))[1]


def test_nothing_is_left_by_a_lossless_codec() -> None:
    update = {"w": torch.tensor([1.0, 2.0])}

    encoded, left = encode_with_error(FP32, update, {"w": torch.tensor([0.5, 0.0])})

    assert left == {}
    assert decode_all(FP32, encoded)["w"].tolist() == [1.5, 2.0]


def test_only_float32_leaves_an_error() -> None:
    encoded, left = encode_with_error(INT4, {"w": gaussian(10), "n": torch.tensor([1, 2])})

    assert list(left) == ["w"]
    assert decode_all(INT4, encoded)["n"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("update", "residual"),
    [
        ({"w": torch.zeros(2)}, {"v": torch.zeros(2)}),
        ({"w": torch.zeros(2)}, {"w": torch.zeros(1)}),
        ({"w": torch.zeros(2).half()}, {"w": torch.zeros(2)}),
    ],
)
def test_residual_of_something_else(update: Tensors, residual: Tensors) -> None:
    with pytest.raises(TensorMismatch, match=r"the residual of '.' has no float32 tensor of shape"):
        encode_with_error(INT8, update, residual)
