"""A checkpoint as an MLflow model: an observation in, a chunk of actions out.

MLflow copies this file into the model ("models from code") and runs it when the model is loaded,
so it imports only what loading needs and works without the project's folder. zk0 has to be
installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

STATE = "observation.state"
TASK = "task"


class ObservationError(ValueError):
    """An observation is not what the policy takes; names the key and what was expected."""


def read_observation(given: object, cameras: tuple[str, ...], state_size: int) -> dict[str, Any]:
    """Check one observation.

    Args:
        given: A mapping, a pandas Series, or a DataFrame of one row, with ``observation.state``
            (``state_size`` numbers, robot units), every camera ((H, W, 3), integers 0 to 255; an
            array or nested lists) and ``task`` (a sentence). Other keys are ignored.
        cameras: The policy's image features.
        state_size: Numbers in the state.

    Returns:
        State as (state_size,) float32, cameras as (H, W, 3) uint8, the task.

    Raises:
        ObservationError: Something is missing or has the wrong form.
    """
    if isinstance(given, pd.DataFrame):
        if len(given) != 1:
            raise ObservationError(f"an observation is one row, but the DataFrame has {len(given)}")
        given = given.iloc[0]
    if isinstance(given, pd.Series):
        given = given.to_dict()
    expected = (STATE, *cameras, TASK)
    if not isinstance(given, Mapping):
        raise ObservationError(
            f"an observation is a dict or a DataFrame row with {', '.join(expected)}, not a {type(given).__name__}"
        )
    if missing := [key for key in expected if key not in given]:
        raise ObservationError(
            f"the observation lacks {', '.join(repr(key) for key in missing)}; "
            f"expected {', '.join(expected)}, got {', '.join(map(str, given))}"
        )
    images = {camera: _image(camera, given[camera]) for camera in cameras}
    return {STATE: _state(given[STATE], state_size), **images, TASK: _sentence(given[TASK])}


def _array(key: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ObservationError(f"'{key}' is ragged: its nested lists differ in length") from error
    if array.dtype.kind not in "iuf":
        raise ObservationError(f"'{key}' must hold numbers, got {array.dtype}")
    return array


def _state(value: Any, size: int) -> np.ndarray:
    array = _array(STATE, value)
    if array.shape != (size,):
        raise ObservationError(f"'{STATE}' must have shape ({size},), got {array.shape}")
    if not np.isfinite(array).all():
        raise ObservationError(f"'{STATE}' must be finite, got {array.tolist()}")
    return array.astype(np.float32)


def _image(key: str, value: Any) -> np.ndarray:
    array = _array(key, value)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ObservationError(f"'{key}' must have shape (H, W, 3), got {array.shape}")
    if array.dtype.kind == "f" or array.min() < 0 or array.max() > 255:
        raise ObservationError(
            f"'{key}' must hold integers from 0 to 255 (uint8), got {array.dtype} from {array.min()} to {array.max()}"
        )
    return array.astype(np.uint8)


def _sentence(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, str) or not value.strip():
        raise ObservationError(f"'{TASK}' must be a sentence, got {value!r}")
    return str(value)


class PolicyModel(PythonModel):
    """SmolVLA behind MLflow's ``predict``.

    ``load_model(uri, model_config={"device": "cuda"})`` puts it on another device than the CPU.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the policy; MLflow calls it once, with the place of the model's files."""
        from zk0.policy.checkpoint import load_checkpoint  # noqa: PLC0415 - imports torch

        device = (context.model_config or {}).get("device", "cpu")
        self._loaded = load_checkpoint(context.artifacts["checkpoint"], device=device)
        self._loaded.policy.eval()

    # MLflow warns at every load about hints it cannot make a schema of; DataFrame is one it leaves alone.
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - as MLflow calls it
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Predict the next actions.

        Args:
            context: Unused.
            model_input: One observation, see :func:`read_observation`.
            params: ``seed`` decides the noise that the actions are made from; one observation and
                one seed always give the same chunk.

        Returns:
            (chunk, 6) float32 joint targets in robot units.
        """
        import torch  # noqa: PLC0415 - slow

        from zk0.policy import flow  # noqa: PLC0415 - imports torch
        from zk0.policy.inputs import observed  # noqa: PLC0415 - imports torch

        config = self._loaded.policy.config
        cameras = self._loaded.cameras
        observation = read_observation(model_input, cameras, config.input_features[STATE].shape[0])
        batch: dict[str, Any] = {STATE: torch.from_numpy(observation[STATE])[None], TASK: [observation[TASK]]}
        for camera in cameras:
            batch[camera] = torch.from_numpy(observation[camera]).permute(2, 0, 1)[None].float() / 255.0
        draws = torch.Generator().manual_seed(int((params or {}).get("seed", 0)))
        noise = torch.randn(1, config.chunk_size, config.max_action_dim, generator=draws)
        actions = flow.predict(self._loaded.policy, observed(self._loaded, batch), noise.to(config.device))
        chunk: np.ndarray = self._loaded.postprocess(actions).cpu().numpy()[0]
        return chunk


set_model(PolicyModel())
