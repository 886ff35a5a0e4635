"""Wire codecs: how tensors travel, as pure functions from tensors to bytes and back.

========  =============  ============================================
codec     bits a value   error
========  =============  ============================================
fp32      32             none
bf16      16             relative to each value, 2**-9 at most
int8      8.06           half a 127th of the block of 256's largest
int4      4.25           half a 7th of the block of 64's largest
========  =============  ============================================

A codec takes and gives float32. Tensors of another dtype travel as they are, whatever the codec.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from zk0.federation.codecs.base import (
    RAW,
    Bf16,
    Codec,
    CodecError,
    Encoded,
    Form,
    Fp32,
    Payload,
    raw_decode,
    raw_encode,
)
from zk0.federation.codecs.blocks import Blocks
from zk0.policy.trainable import TensorMismatch, Tensors
from zk0.words import nearest_hint

__all__ = [
    "CODECS",
    "Codec",
    "CodecError",
    "Encoded",
    "Form",
    "Payload",
    "codec_named",
    "decode_all",
    "encode_all",
    "encode_with_error",
    "forms_of",
]

CODECS: dict[str, Codec] = {
    codec.name: codec for codec in (Fp32(), Bf16(), Blocks("int8", bits=8, block=256), Blocks("int4", bits=4, block=64))
}


def codec_named(name: str) -> Codec:
    """Look up a codec.

    Raises:
        CodecError: There is none of that name; suggests the nearest.
    """
    try:
        return CODECS[name]
    except KeyError:
        raise CodecError(f"there is no codec '{name}'{nearest_hint(name, CODECS)}") from None


def encode_all(codec: Codec, tensors: Mapping[str, torch.Tensor]) -> dict[str, Encoded]:
    """Encode tensors by name.

    Payloads may share memory with the tensors, which then must not be changed before they are sent.

    Raises:
        TensorMismatch: The codec is lossy and a value is not finite; names the tensor.
        CodecError: A tensor's dtype cannot travel; names the tensor.
    """
    return {
        name: codec.encode(name, tensor) if tensor.dtype == torch.float32 else raw_encode(name, tensor)
        for name, tensor in tensors.items()
    }


def decode_all(codec: Codec, encoded: Mapping[str, Encoded]) -> Tensors:
    """Decode tensors by name; the result may share memory with the payloads and must not be written to.

    Raises:
        CodecError: A tensor was encoded by another codec than the one agreed on, or its payload is
            damaged; names it.
    """
    return {name: _decode(codec, name, one) for name, one in encoded.items()}


def forms_of(codec: Codec, tensors: Mapping[str, torch.Tensor]) -> dict[str, Form]:
    """What tensors of these shapes and dtypes must look like as :func:`encode_all` writes them."""
    return {
        name: Form(codec.name, tuple(tensor.shape), codec.payload_bytes(tensor.numel()))
        if tensor.dtype == torch.float32
        else Form(str(tensor.dtype), tuple(tensor.shape), tensor.numel() * tensor.element_size())
        for name, tensor in tensors.items()
    }


def encode_with_error(
    codec: Codec, tensors: Tensors, residual: Mapping[str, torch.Tensor] | None = None
) -> tuple[dict[str, Encoded], Tensors]:
    """Encode tensors plus what was left of the last ones, and tell what is left now.

    Error feedback: Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014; Karimireddy
    et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019. What
    is left is the float32 difference between what was to be sent and what is decoded.

    Args:
        codec: Any; a lossless one leaves nothing.
        tensors: To be sent. Taken over: their memory becomes the new residual's, or the payloads'.
        residual: What was left before; not changed, so that it is still there should these never
            be used. None or empty for nothing.

    Returns:
        Encoded tensors, and the new residual by name (empty where the codec is lossless).

    Raises:
        TensorMismatch: A residual has no counterpart of its shape, or a value is not finite.
    """
    for name, left in (residual or {}).items():
        if name not in tensors or tensors[name].shape != left.shape or tensors[name].dtype != torch.float32:
            raise TensorMismatch(f"the residual of '{name}' has no float32 tensor of shape {tuple(left.shape)}")
        tensors[name].add_(left)
    encoded = encode_all(codec, tensors)
    if codec.lossless:
        return encoded, {}
    lossy = {name: tensor for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    scratch = torch.empty(max((tensor.numel() for tensor in lossy.values()), default=0))
    for name, tensor in lossy.items():
        decoded = scratch[: tensor.numel()].view(tensor.shape)
        tensor.sub_(codec.decode(name, encoded[name].payload, tensor.shape, out=decoded))
    return encoded, lossy


def _decode(codec: Codec, name: str, one: Encoded) -> torch.Tensor:
    if one.form == codec.name:
        return codec.decode(name, one.payload, one.shape)
    if one.form in RAW:
        return raw_decode(name, one.payload, one.shape, RAW[one.form])
    raise CodecError(f"tensor '{name}' is encoded as '{one.form}', expected '{codec.name}'")
