"""The global model on its way to the sites, and the one a site holds.

Every model has a digest. A site that holds it is only told its name; one that holds the model
before gets the encoded difference; any other gets all tensors. What a site trains from is the same
in each case, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from flwr.app import ArrayRecord, RecordDict

from zk0.federation import codecs, protocol, wire
from zk0.params import Codec
from zk0.policy.trainable import Tensors, check_alike, digest_tensors

GLOBAL = "global"
_KEPT = 2


class MissingModel(LookupError):
    """A site was told the name of a model that it does not hold; the server then sends all of it."""


@dataclass(frozen=True)
class Model:
    """A global model.

    Attributes:
        tensors: Its trainable tensors; not to be written to.
        digest: Of the tensors.
        reference: Digest of the model that ``delta`` starts from; None where there is no delta.
        delta: The encoded difference to the reference.
        codec: The delta's.
    """

    tensors: Tensors
    digest: str
    reference: str | None = None
    delta: ArrayRecord | None = None
    codec: Codec = "fp32"

    @classmethod
    def of(cls, tensors: Tensors) -> Model:
        """A model that can only be sent as a whole."""
        return cls(tensors, digest_tensors(tensors))

    @cached_property
    def _whole(self) -> ArrayRecord:
        return wire.encode(self.tensors)

    def put(self, content: RecordDict, held: str | None) -> dict[str, str | None]:
        """Put into a message what a site that holds model ``held`` lacks of this one.

        Returns:
            What the header must say: digest, reference and codec.
        """
        if held == self.digest:
            return {"digest": self.digest, "reference": None, "codec": None}
        if self.delta is not None and held == self.reference:
            content[GLOBAL] = self.delta
            return {"digest": self.digest, "reference": self.reference, "codec": self.codec}
        content[GLOBAL] = self._whole
        return {"digest": self.digest, "reference": None, "codec": "fp32"}


def next_model(model: Model, exact: Tensors, codec: Codec) -> tuple[Model, Tensors]:
    """The next global model, as the sites will have it, and what the codec could not carry of it.

    Args:
        model: The present one, which the sites hold.
        exact: What the server would like it to be; becomes the model itself where the codec is
            lossless, and the residual's memory where it is not.
        codec: The downlink's.

    Returns:
        Model and residual (empty for a lossless codec). The residual is to be added to the next
        ``exact``: then no part of any update is lost (error feedback; Karimireddy et al., "Error
        Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019).
    """
    coder = codecs.codec_named(codec)
    if coder.lossless:
        return Model.of(exact), {}
    for name, tensor in exact.items():
        tensor.sub_(model.tensors[name])
    encoded, residual = codecs.encode_with_error(coder, exact, None)
    tensors = add_delta(model.tensors, codecs.decode_all(coder, encoded))
    return Model(tensors, digest_tensors(tensors), model.digest, wire.record_of(encoded), codec), residual


def add_delta(reference: Mapping[str, torch.Tensor], delta: Tensors) -> Tensors:
    """Reference plus delta, in the delta's memory; server and sites must do the very same."""
    return {name: delta[name].add_(tensor) for name, tensor in reference.items()}


class Held:
    """The models that a process holds: the starting one and the last few; sites of one process share them."""

    def __init__(self, start: Tensors) -> None:
        self._start = digest_tensors(start)
        self._models = {self._start: start}

    def _keep(self, tensors: Tensors, digest: str) -> None:
        self._models[digest] = tensors
        for old in [d for d in self._models if d != self._start][:-_KEPT]:
            del self._models[old]

    def receive(self, content: RecordDict, told: Mapping[str, Any]) -> Tensors:
        """The model that a message speaks of.

        Args:
            content: The message's.
            told: What :meth:`Model.put` returned at the sender.

        Raises:
            MissingModel: It, or its reference, is not held.
            WireError: What was sent is damaged, or is another model than its sender states.
            TensorMismatch: A delta does not fit its reference; names the tensor.
        """
        digest, reference = str(told["digest"]), told["reference"]
        if digest in self._models:
            return self._models[digest]
        if told["codec"] is None:
            raise MissingModel(digest)
        if reference is None:
            tensors = wire.decode(content, GLOBAL, "fp32")
        elif reference in self._models:
            delta = wire.decode(content, GLOBAL, told["codec"])
            check_alike(delta, self._models[reference])
            tensors = add_delta(self._models[reference], delta)
        else:
            raise MissingModel(reference)
        if (found := digest_tensors(tensors)) != digest:
            raise protocol.WireError(
                f"'{GLOBAL}' makes a model of digest {found}, but its sender states {digest}: it was damaged or changed"
            )
        self._keep(tensors, digest)
        return tensors
