"""What a codec is, and what it makes of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from zk0.params import Codec as CodecName

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
    return torch.from_dlpack(values)  # unlike from_numpy, without a warning where the payload is read-only
