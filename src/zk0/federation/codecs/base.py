"""What a codec is, what it makes of a tensor, and those that keep a floating-point number one: fp32 and bf16.

Tensors of any other dtype than float32 travel as they are, byte by byte, whatever the codec.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from zk0.params import Codec as CodecName
from zk0.policy.trainable import PIECE, check_finite

Payload = bytes | bytearray | memoryview


class CodecError(ValueError):
    """Bytes are not what a codec makes of a tensor; names the tensor."""


@dataclass(frozen=True)
class Encoded:
    """One tensor as it travels.

    Attributes:
        form: Name of the codec; or of torch's dtype, for a tensor that is not float32 and travels as it is.
        shape: The tensor's.
        payload: Its bytes, flat. May be a view of the tensor's memory, or of a message's.
    """

    form: str
    shape: tuple[int, ...]
    payload: Payload


@dataclass(frozen=True)
class Form:
    """What a tensor must look like as it travels, before a look at its bytes.

    Attributes:
        name: Of the codec or dtype, see :class:`Encoded`.
        shape: The tensor's.
        payload_bytes: How long its payload must be.
    """

    name: str
    shape: tuple[int, ...]
    payload_bytes: int


class Codec(Protocol):
    """A way to write float32 values: a pure function to bytes, and one back.

    Attributes:
        name: As in params.
        lossless: Whether decoding gives back every bit.
    """

    name: CodecName
    lossless: bool

    def payload_bytes(self, values: int) -> int:
        """Length of the payload of a tensor of that many values."""
        ...

    def encode(self, name: str, tensor: torch.Tensor) -> Encoded:
        """Encode a float32 tensor of any shape, on the CPU.

        Raises:
            TensorMismatch: The codec is lossy and a value is not finite; names the tensor.
        """
        ...

    def decode(
        self, name: str, payload: Payload, shape: Sequence[int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode to float32, into ``out`` if given.

        Without ``out`` the result may be a view of the payload: not to be written to.

        Raises:
            CodecError: The payload's length does not fit the shape, or its scales are no scales.
        """
        ...


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, flat; a view where the tensor is contiguous and on the CPU."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def from_bytes(name: str, payload: Payload, length: int, shape: Sequence[int]) -> torch.Tensor:
    """A payload of known length as a uint8 tensor that shares its memory.

    Raises:
        CodecError: The shape is none, or the payload has another length; says what both are.
    """
    if any(extent < 0 for extent in shape):
        raise CodecError(f"tensor '{name}' has shape {tuple(shape)}, which no tensor can have")
    values = np.frombuffer(payload, dtype=np.uint8)
    if values.size != length:
        raise CodecError(f"tensor '{name}' has {values.size} bytes, expected {length} for shape {tuple(shape)}")
    return from_dlpack(values)  # unlike from_numpy, without a warning where the payload is read-only


# Forms of what travels as it is. With torch's prefix, int8 the dtype is not int8 the codec.
RAW = {
    str(dtype): dtype
    for dtype in (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
}


class Fp32(Codec):
    """The values themselves. Encoding and decoding are views, and so do not look at them: NaN passes."""

    name: CodecName = "fp32"
    lossless = True

    def payload_bytes(self, values: int) -> int:
        """Four bytes a value: ``4 * values``."""
        return 4 * values

    def encode(self, name: str, tensor: torch.Tensor) -> Encoded:  # noqa: ARG002 - a codec's signature
        """A view of the tensor's memory."""
        return Encoded(self.name, tuple(tensor.shape), as_bytes(tensor))

    def decode(
        self, name: str, payload: Payload, shape: Sequence[int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A view of the payload, or a copy into ``out``."""
        decoded = raw_decode(name, payload, shape, torch.float32)
        return decoded if out is None else out.copy_(decoded)


class Bf16(Codec):
    """The upper half of a float32, rounded to nearest, ties to even: 8 bits of precision, float32's range."""

    name: CodecName = "bf16"
    lossless = False

    def payload_bytes(self, values: int) -> int:
        """Two bytes a value: ``2 * values``."""
        return 2 * values

    def encode(self, name: str, tensor: torch.Tensor) -> Encoded:
        """Round; a value that would round to infinity is refused as if it were infinite."""
        flat = tensor.detach().cpu().reshape(-1)
        rounded = torch.empty(flat.shape, dtype=torch.bfloat16)
        for piece, to in zip(torch.split(flat, PIECE), torch.split(rounded, PIECE), strict=True):
            to.copy_(piece)
            # Finite norm, finite values: see update_norm. Only large values ask for a closer look.
            if not math.isfinite(torch.linalg.vector_norm(piece)) and not torch.isfinite(to).all():
                check_finite({name: flat})
                check_finite({f"{name} in bf16": to})
        return Encoded(self.name, tuple(tensor.shape), as_bytes(rounded))

    def decode(
        self, name: str, payload: Payload, shape: Sequence[int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Exact: every bf16 is a float32."""
        decoded = raw_decode(name, payload, shape, torch.bfloat16)
        return decoded.to(torch.float32) if out is None else out.copy_(decoded)


def raw_encode(name: str, tensor: torch.Tensor) -> Encoded:
    """A tensor that is not float32, byte by byte.

    Raises:
        CodecError: No codec is there for its dtype; names the tensor.
    """
    if str(tensor.dtype) not in RAW:
        raise CodecError(f"tensor '{name}' is {tensor.dtype}; what can travel is torch.float32, {', '.join(RAW)}")
    return Encoded(str(tensor.dtype), tuple(tensor.shape), as_bytes(tensor))


def raw_decode(name: str, payload: Payload, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A view of the payload as a tensor.

    Raises:
        CodecError: Its length does not fit shape and dtype.
    """
    return from_bytes(name, payload, math.prod(shape) * dtype.itemsize, shape).view(dtype).reshape(tuple(shape))
