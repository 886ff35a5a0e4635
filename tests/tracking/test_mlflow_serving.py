"""What an observation must be, and what is said when it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from zk0.tracking.serving import ObservationError, read_observation

CAMERAS = ("observation.images.top", "observation.images.wrist")
PIXELS = np.zeros((4, 5, 3), np.uint8)
GOOD: dict[str, Any] = {
    "observation.state": [1, 2, 3, 4, 5, 6],
    "observation.images.top": PIXELS,
    "observation.images.wrist": PIXELS.tolist(),
    "task": np.array("touch the red cube"),
}


def test_a_good_observation_becomes_arrays() -> None:
    read = read_observation(GOOD | {"timestamp": 0.1}, CAMERAS, 6)

    assert read["observation.state"].dtype == np.float32
    assert read["observation.images.wrist"].shape == (4, 5, 3)
    assert read["observation.images.wrist"].dtype == np.uint8
    assert read["task"] == "touch the red cube"
    assert "timestamp" not in read
    for given in (pd.Series(GOOD), pd.DataFrame([GOOD])):
        assert read_observation(given, CAMERAS, 6)["task"] == "touch the red cube"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"observation.state": [1.0] * 5}, r"'observation.state' must have shape \(6,\), got \(5,\)"),
        ({"observation.state": [np.nan] * 6}, "'observation.state' must be finite"),
        ({"observation.state": "zero"}, "'observation.state' must hold numbers"),
        ({"observation.state": [[1, 2], [3]]}, "'observation.state' is ragged"),
        (
            {"observation.images.top": np.zeros((3, 96, 96), np.uint8)},
            r"'observation.images.top' must have shape \(H, W, 3\), got \(3, 96, 96\)",
        ),
        (
            {"observation.images.wrist": np.zeros((4, 4, 3), np.float32)},
            "'observation.images.wrist' must hold integers from 0 to 255 .*got float32",
        ),
        ({"observation.images.wrist": np.full((4, 4, 3), 256)}, "integers from 0 to 255 .* from 256 to 256"),
        ({"task": ""}, "'task' must be a sentence, got ''"),
        ({"task": 3}, "'task' must be a sentence, got 3"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        read_observation(GOOD | changed, CAMERAS, 6)


def test_a_missing_key_is_named() -> None:
    given = {key: value for key, value in GOOD.items() if key != "observation.images.wrist"}

    with pytest.raises(ObservationError, match=r"lacks 'observation.images.wrist'; expected observation.state, .*task"):
        read_observation(given, CAMERAS, 6)


def test_many_rows_or_a_list_are_no_observation() -> None:
    with pytest.raises(ObservationError, match="one row, but the DataFrame has 2"):
        read_observation(pd.DataFrame([GOOD, GOOD]), CAMERAS, 6)
    with pytest.raises(ObservationError, match=r"a dict or a DataFrame row with .*, not a list"):
        read_observation([1, 2], CAMERAS, 6)
