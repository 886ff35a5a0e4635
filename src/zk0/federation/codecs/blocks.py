"""Block codecs: small integers, with one scale for each block of values.

Symmetric absmax quantisation by blocks, as in Dettmers et al., "8-bit Optimizers via Block-wise
Quantization", ICLR 2022. A payload is

    unit (float32) | one scale a block (float16, times unit) | the integers

The unit is a power of two that puts the tensor's largest scale near the top of float16's range, so
that neither tiny nor huge updates overflow a scale or lose its precision, and multiplying by it is
exact. A block whose scale would be below float16's normal numbers is 2**28 times smaller than the
tensor's largest: it becomes zeros. So do tensors smaller than 2**-113 altogether.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from zk0.federation.codecs.base import Codec, CodecError, Encoded, Payload, as_bytes, from_bytes
from zk0.params import Codec as CodecName
from zk0.policy.trainable import PIECE, check_finite

_UNIT = 4  # bytes
_SCALE = 2
_SMALLEST_SCALE = 2.0**-120  # so that its reciprocal is finite
_SMALLEST_HALF = 2.0**-14
_LARGEST_HALF_EXPONENT = 15


@dataclass(frozen=True)
class Blocks(Codec):
    """Integers of a few bits, in blocks.

    Attributes:
        name: As in params.
        bits: 8, or 4 for two values a byte; the range is symmetric, so one code stays unused.
        block: Values that share a scale.
    """

    name: CodecName
    bits: int
    block: int
    lossless: bool = False

    def payload_bytes(self, values: int) -> int:
        """Unit, scales and integers."""
        return _UNIT + _SCALE * -(-values // self.block) + -(-values * self.bits // 8)

    def encode(self, name: str, tensor: torch.Tensor) -> Encoded:
        """Round each value to the nearest multiple of its block's scale."""
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        largest = self._largest(flat)
        if not torch.isfinite(largest).all():
            check_finite({name: flat})
        unit, halves = _scales(largest.div_(2 ** (self.bits - 1) - 1))
        inverse = halves.to(torch.float32).mul_(unit).reciprocal_()
        inverse[halves == 0] = 0

        payload = torch.empty(self.payload_bytes(flat.numel()), dtype=torch.uint8)
        payload[:_UNIT].view(torch.float32).fill_(unit)
        integers = _UNIT + _SCALE * halves.numel()
        payload[_UNIT:integers].view(torch.float16).copy_(halves)
        buffer = torch.empty(min(PIECE, flat.numel()) + 1)
        for rows, by, to in self._pieces(flat, inverse, payload[integers:]):
            width = rows.shape[1] + rows.shape[1] % 2 if self.bits == 4 else rows.shape[1]
            scaled = buffer[: len(rows) * width].view(len(rows), width)
            torch.mul(rows, by[:, None], out=scaled[:, : rows.shape[1]])
            scaled[:, rows.shape[1] :] = 0
            self._store(scaled.round_(), to)
        return Encoded(self.name, tuple(tensor.shape), as_bytes(payload))

    def decode(
        self, name: str, payload: Payload, shape: Sequence[int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Integers times scales; every receiver gets the same bits."""
        values = math.prod(shape)
        content = from_bytes(name, payload, self.payload_bytes(values), shape)
        integers = _UNIT + _SCALE * -(-values // self.block)
        unit = content[:_UNIT].view(torch.float32)
        scales = content[_UNIT:integers].view(torch.float16).to(torch.float32).mul_(unit)
        # NaN compares as False; the largest code is 2 ** (bits - 1).
        if not ((scales >= 0) & (scales * 2 ** (self.bits - 1) < math.inf)).all():
            raise CodecError(f"tensor '{name}' has a scale that is negative or not finite: its payload is damaged")
        decoded = torch.empty(tuple(shape)) if out is None else out
        for rows, by, codes in self._pieces(decoded.view(-1), scales, content[integers:]):
            self._load(codes, rows)
            rows.mul_(by[:, None])
        return decoded

    def _pieces(
        self, flat: torch.Tensor, scales: torch.Tensor, codes: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Cache-sized pieces: rows of one block each, their scales, their codes. A last, shorter block comes alone."""
        whole = flat.numel() // self.block * self.block
        bounds = [*range(0, whole, PIECE), whole] if whole else [0]
        for start, stop in pairwise(bounds):
            blocks = slice(start // self.block, stop // self.block)
            yield (
                flat[start:stop].view(-1, self.block),
                scales[blocks],
                codes[start * self.bits // 8 : stop * self.bits // 8],
            )
        if whole < flat.numel():
            yield flat[whole:].view(1, -1), scales[-1:], codes[whole * self.bits // 8 :]

    def _largest(self, flat: torch.Tensor) -> torch.Tensor:
        """The largest magnitude in each block; NaN and infinity come through."""
        largest = torch.zeros(-(-flat.numel() // self.block))
        buffer = torch.empty(min(PIECE, flat.numel()))
        for rows, to, _ in self._pieces(flat, largest, flat):
            magnitudes = torch.abs(rows, out=buffer[: rows.numel()].view(rows.shape))
            torch.amax(magnitudes, dim=1, out=to)
        return largest

    def _store(self, rounded: torch.Tensor, to: torch.Tensor) -> None:
        """Write whole numbers as codes."""
        if self.bits == 8:
            to.view(torch.int8).view(rounded.shape).copy_(rounded)
            return
        half = rounded.shape[1] // 2
        low, high = rounded[:, :half], rounded[:, half:]
        # Each plus 8, so that no code is negative; the second in the upper four bits.
        to.view(len(rounded), half).copy_(low.add_(high, alpha=16).add_(8 + 16 * 8))

    def _load(self, codes: torch.Tensor, rows: torch.Tensor) -> None:
        """Read codes as whole numbers."""
        if self.bits == 8:
            rows.copy_(codes.view(torch.int8).view(rows.shape))
            return
        width = rows.shape[1]
        half = -(-width // 2)
        pairs = codes.view(len(rows), half)
        rows[:, :half].copy_((pairs & 15).view(torch.int8).sub_(8))
        rows[:, half:].copy_((pairs >> 4).view(torch.int8).sub_(8)[:, : width - half])


def _scales(exact: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The tensor's unit and, in multiples of it, each block's scale in float16.

    Rounding to nearest is enough: a scale too small by float16's half ulp makes a block's largest
    value 127.03 at most, which rounds to 127.
    """
    largest = float(exact.max()) if exact.numel() else 0.0
    exponent = max(math.frexp(largest)[1] - _LARGEST_HALF_EXPONENT, -126)
    unit = math.ldexp(1.0, exponent)
    in_units = exact / unit
    in_units[(in_units < _SMALLEST_HALF) | (exact < _SMALLEST_SCALE)] = 0
    return unit, in_units.to(torch.float16)
