"""Codecs that keep a floating-point number a floating-point number: fp32 and bf16, and any dtype as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from zk0.federation.codecs.base import Codec, CodecError, CodecName, Encoded, Payload, as_bytes, from_bytes
from zk0.policy.trainable import PIECE, check_finite

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
        """Four bytes a value."""
        return 4 * values

    def encode(self, name: str, tensor: torch.Tensor) -> Encoded:
        """A view of the tensor's memory."""
        return Encoded(self.name, tuple(tensor.shape), as_bytes(tensor))

    def decode(
        self, name: str, payload: Payload, shape: Sequence[int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A view of the payload."""
        decoded = raw_decode(name, payload, shape, torch.float32)
        return decoded if out is None else out.copy_(decoded)


class Bf16(Codec):
    """The upper half of a float32, rounded to nearest, ties to even: 8 bits of precision, float32's range."""

    name: CodecName = "bf16"
    lossless = False

    def payload_bytes(self, values: int) -> int:
        """Two bytes a value."""
        return 2 * values

    def encode(self, name: str, tensor: torch.Tensor) -> Encoded:
        """Round; a value that would round to infinity is refused as if it were infinite."""
        flat = tensor.detach().cpu().reshape(-1)
        rounded = torch.empty(flat.shape, dtype=torch.bfloat16)
        for piece, to in zip(flat.split(PIECE), rounded.split(PIECE), strict=True):
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
