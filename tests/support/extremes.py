"""Values at the bounds of a field, just beyond them, and of any other kind, as its schema has them."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

_WORDS = ["", "1", "\ud800 lone", "\x1b[2K\nround 9: all is well\x00\u202e", "x" * 100_000, "{0} [red]%s"]
_OTHERS: list[Any] = [None, True, [], {}, [1.0], {"a": 1}, [[[]]], [None] * 1000, {"__class__": "x"}]
_NUMBERS = [0, -0.0, -1, 0.5, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf, 2**63, 10**400, -(10**400)]
_LARGEST_LIST = 2_000_000  # a field that allows more is tried at this many


class Fields:
    """A model's fields, each as the part of the model's JSON schema that is about it."""

    def __init__(self, model: type[BaseModel]) -> None:
        schema = model.model_json_schema()
        self._definitions = schema.get("$defs", {})
        self.names = sorted(schema["properties"])
        self._parts: dict[str, Any] = schema["properties"]

    def values(self, name: str) -> st.SearchStrategy[Any]:
        """Extremes of a field first, then anything of its type."""
        found = [*self._bounds(self._parts[name]), *_NUMBERS, *_WORDS, *_OTHERS]
        return st.one_of(st.sampled_from(found), st.floats(), st.integers(), st.text(max_size=50))

    def allows(self, name: str, value: Any) -> bool:
        """Whether a value is within the schema, and a number finite: another reader of it than pydantic."""
        part = {**self._parts[name], "$defs": self._definitions}
        return _finite(value) and bool(Draft202012Validator(part).is_valid(value))

    def _bounds(self, part: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        for one in part.get("anyOf", []):
            found += self._bounds(one)
        if "$ref" in part:
            return self._bounds(self._definitions[part["$ref"].rpartition("/")[2]])
        for word in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if word in part:
                bound = part[word]
                found += [bound, bound - 1, bound + 1, 2 * bound, math.nextafter(bound, -math.inf)]
                found += [math.nextafter(bound, math.inf)]
        for word in ("minLength", "maxLength"):
            if word in part:
                found += ["a" * part[word], "a" * (part[word] + 1), "\ud800" * part[word]]
        if part.get("type") == "array":
            items = self._bounds(part.get("items", {})) or ["a"]
            most = min(part.get("maxItems", 1000), _LARGEST_LIST)
            found += [[one] for one in items] + [items[:1] * most, items[:1] * (most + 1)]
        if isinstance(part.get("additionalProperties"), dict):
            items = self._bounds(part["additionalProperties"]) or ["a"]
            most = part.get("maxProperties", 1000)
            found += [{"a": one} for one in items] + [{str(n): items[0] for n in range(most + 1)}]
        return found


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(one) for one in value.values())
    return all(_finite(one) for one in value) if isinstance(value, list) else True
