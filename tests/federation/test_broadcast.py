"""A model reaches a site whole, as a difference or by name, and is the same each way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flwr.app import RecordDict

from zk0.federation import wire
from zk0.federation.broadcast import GLOBAL, Held, MissingModel, Model, next_model
from zk0.federation.protocol import WireError
from zk0.params import Codec
from zk0.policy.trainable import TensorMismatch, Tensors, digest_tensors

LOSSY: list[Codec] = ["bf16", "int8", "int4"]


def tensors(seed: int, scale: float = 1.0) -> Tensors:
    """A matrix and a vector."""
    rng = torch.Generator().manual_seed(seed)
    return {"matrix": scale * torch.randn(40, 50, generator=rng), "vector": scale * torch.randn(7, generator=rng)}


def plus(one: Tensors, other: Tensors) -> Tensors:
    return {name: tensor + other[name] for name, tensor in one.items()}


def sent(model: Model, held: str | None) -> tuple[RecordDict, dict[str, Any]]:
    content = RecordDict()
    return content, model.put(content, held)


def test_site_that_holds_the_model_is_sent_its_name_only() -> None:
    start = tensors(1)
    model = Model.of(start)

    content, told = sent(model, model.digest)

    assert wire.payload_bytes(content) == 0
    assert Held(start).receive(content, told) is start


def test_site_that_holds_nothing_is_sent_all_tensors() -> None:
    model = Model.of(tensors(2))
    content, told = sent(model, None)
    held = Held(tensors(1))

    found = held.receive(content, told)

    assert digest_tensors(found) == model.digest
    assert wire.payload_bytes(content) == 4 * 2007
    assert held.receive(*sent(model, model.digest)) is found


@pytest.mark.parametrize("codec", LOSSY)
def test_difference_makes_the_very_same_model(codec: Codec) -> None:
    start = tensors(1)
    model, residual = next_model(Model.of(start), plus(start, tensors(2, 0.01)), codec)

    by_difference, told = sent(model, digest_tensors(start))
    found = Held(start).receive(by_difference, told)
    whole = Held(start).receive(*sent(model, None))

    assert told["codec"] == codec
    assert wire.payload_bytes(by_difference) < 0.55 * 4 * 2007
    assert digest_tensors(found) == digest_tensors(whole) == model.digest
    assert residual.keys() == start.keys()


@pytest.mark.parametrize("codec", LOSSY)
def test_what_one_model_lacks_the_next_ones_make_up_for(codec: Codec) -> None:
    """After rounds of small steps the model is where it should be, but for the last residual."""
    wanted, model = tensors(1), Model.of(tensors(1))
    residual: Tensors = {}
    for number in range(20):
        step = tensors(number + 2, 1e-3)
        wanted = plus(wanted, step)
        exact = plus(model.tensors, step)
        for name, missing in residual.items():
            exact[name] += missing
        model, residual = next_model(model, exact, codec)

    for name, tensor in wanted.items():
        assert torch.allclose(model.tensors[name] + residual[name], tensor, atol=2e-6)


def test_lossless_codec_gives_the_exact_model() -> None:
    exact = tensors(2)

    model, residual = next_model(Model.of(tensors(1)), exact, "fp32")

    assert model.tensors is exact and residual == {} and model.delta is None


def test_model_a_site_lacks_is_named() -> None:
    model, other = Model.of(tensors(2)), Held(tensors(1))
    with pytest.raises(MissingModel, match=model.digest):
        other.receive(*sent(model, model.digest))

    start = tensors(3)
    after, _ = next_model(Model.of(start), plus(start, tensors(4)), "int8")
    with pytest.raises(MissingModel, match=digest_tensors(start)):
        other.receive(*sent(after, digest_tensors(start)))


def test_only_the_start_and_the_last_models_are_held() -> None:
    start = tensors(0)
    held = Held(start)
    models = [Model.of(tensors(seed)) for seed in (1, 2, 3)]
    for model in models:
        held.receive(*sent(model, None))

    with pytest.raises(MissingModel):
        held.receive(*sent(models[0], models[0].digest))
    for model in [*models[1:], Model.of(start)]:
        assert digest_tensors(held.receive(*sent(model, model.digest))) == model.digest


def test_damaged_model_is_refused() -> None:
    model = Model.of(tensors(2))
    content, told = sent(model, None)
    content.array_records[GLOBAL]["vector"].data = bytes(28)

    with pytest.raises(WireError, match=r"makes a model of digest .*, but its sender states .*damaged or changed"):
        Held(tensors(1)).receive(content, told)


def test_difference_of_another_shape_is_refused() -> None:
    start = tensors(1)
    model, _ = next_model(Model.of(start), plus(start, tensors(2)), "int8")
    narrow = {"matrix": start["matrix"][:1].clone(), "vector": start["vector"]}
    content, told = sent(model, digest_tensors(start))

    with pytest.raises(TensorMismatch, match=r"tensor 'matrix' has shape \(40, 50\), expected \(1, 50\)"):
        Held(narrow).receive(content, told | {"reference": digest_tensors(narrow)})
