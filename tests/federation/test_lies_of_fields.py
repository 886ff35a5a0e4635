"""Every field of every message at its extremes and beyond, drawn from the schemas that replies are read by.

A field that is added to a schema is tried here by itself.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from extremes import Fields
from hypothesis import HealthCheck, Phase, given, note, settings
from lies import FIRST, fields
from lying_federation import LIAR, LONGEST_REASON, Lie, LyingFederation
from lying_federation import away as is_away

from zk0.data.manifest import Manifest
from zk0.federation import answers, protocol
from zk0.federation.protocol import Header

EXAMPLES = 12
KINDS = (protocol.SUMMARY, protocol.STATISTICS, protocol.TRAIN, protocol.EVALUATE)
# Kind of message, where in the header's JSON, and which model reads it.
PLACES = [
    *((kind, (), Header) for kind in KINDS),
    (protocol.SUMMARY, ("values", "manifest"), Manifest),
    *((kind, ("values",), answers._ANSWERS[kind]) for kind in KINDS),
]
CASES = [(kind, path, model, name) for kind, path, model in PLACES for name in Fields(model).names]
WEIGHTS = {"examples"}  # what a site may say of them moves the model; how far is another test's
# What is known better than by the site's word, whatever it says.
KNOWN = {"site", "partition", "role", "episode_digests"}


def lie_about(kind: str, path: tuple[str, ...], name: str, value: Any) -> Lie:
    def change(found: dict[str, Any]) -> None:
        for step in path:
            found = found[step]
        found[name] = value

    return Lie(kind, fields(change), None, FIRST[kind])


@pytest.mark.parametrize(
    ("kind", "path", "model", "name"), CASES, ids=[f"{model.__name__}-{kind}-{name}" for kind, _, model, name in CASES]
)
def test_a_field_at_its_extremes(
    lying: LyingFederation, kind: str, path: tuple[str, ...], model: type[Any], name: str
) -> None:
    """Refused by name where it is beyond its bounds; elsewhere nobody is left out, and what is kept is as allowed."""
    schema = Fields(model)
    honest, away = lying.exchange(None, kind), lying.exchange(Lie(kind, is_away, None, FIRST[kind]), kind)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(value=schema.values(name))
    def check(value: Any) -> None:
        note(f"{name} = {str(value)[:100]}")
        found = lying.exchange(lie_about(kind, path, name, value), kind)
        reasons = found.reasons()
        assert reasons.keys() <= {LIAR}
        for reason in reasons.get(LIAR, []):
            assert len(reason) <= LONGEST_REASON and reason.isprintable()
        told = json.dumps(found.told, allow_nan=False, ensure_ascii=False).encode()
        assert len(told) < 5_000_000
        if reasons:
            assert found.told == away.told
            return
        assert schema.allows(name, value) or name in KNOWN or model is Manifest
        assert name not in found.liar or schema.allows(name, found.liar[name])
        assert name in WEIGHTS or found.told.get("digest") == honest.told.get("digest")

    check()
