"""Safetensors files: what their headers declare, before a tensor is read or a model is built.

The format holds no code. But a model is built from the settings first and filled from the file afterwards, so
settings that the file does not bear out would decide how much memory is taken.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from zk0.checkpoints.folder import Folder, shown
from zk0.checkpoints.settings import Settings, VlmSettings

Shapes = dict[str, tuple[int, ...]]
_HEADER_BYTES = 16 << 20
_STATE_BYTES = 16 << 20
_TENSORS, _NAME = 5000, 200  # LeRobot prints the names that it does not know
_UNUSED = 8  # so many times the layers that are used may a language model have
_EXPERT = "model.vlm_with_expert.lm_expert.layers."
_VLM = "model.vlm_with_expert.vlm.model."
_TEXT, _VISION = f"{_VLM}text_model.layers.", f"{_VLM}vision_model.encoder.layers."
_NUMBERS = ("F16", "F32", "F64", "BF16", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
_FORMAT = "a safetensors file as LeRobot writes it"


def shapes_of(folder: Folder, name: str) -> Shapes:
    """Shapes of the tensors that a file declares; the library compares them with the file's length.

    Raises:
        CheckpointError: It is no safetensors file, or its header is out of bounds.
    """
    file = folder.file(name)
    with file.open("rb") as stream:
        head = stream.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 2 <= length <= min(_HEADER_BYTES, file.stat().st_size):
        raise folder.refused(name, f"a header of {shown(length)} bytes", f"{_FORMAT}, its header at most 16 MiB")
    try:
        with safe_open(file, framework="numpy") as tensors:
            views = {tensor: tensors.get_slice(tensor) for tensor in tensors.keys()}  # noqa: SIM118
            found = {tensor: (view.get_dtype(), tuple(view.get_shape())) for tensor, view in views.items()}
    except (SafetensorError, OSError) as error:
        raise folder.refused(name, f"no safetensors file ({shown(str(error), quoted=False)})", _FORMAT) from error
    if len(found) > _TENSORS or any(len(tensor) > _NAME for tensor in found):
        told = f"{len(found)} tensors, or a name of more than {_NAME} characters"
        raise folder.refused(name, told, f"at most {_TENSORS} tensors with short names")
    for tensor, (dtype, _) in found.items():
        if dtype not in _NUMBERS:
            raise folder.refused(f"{name}, {shown(tensor)}", f"numbers of type {shown(dtype)}", ", ".join(_NUMBERS))
    return {tensor: shape for tensor, (_, shape) in found.items()}


def check_weights(folder: Folder, name: str, settings: Settings, vlm: VlmSettings | None) -> None:
    """Refuse weights that the settings do not describe, by the tensors that decide how much memory a model takes.

    Raises:
        CheckpointError: Names the tensor, its shape and the one that the settings ask for.
    """
    shapes = shapes_of(folder, name)
    for tensor, expected in _expected(folder, name, shapes, settings, vlm).items():
        found = shapes.get(tensor)
        if found != expected:
            told = "missing" if found is None else f"of shape {shown(list(found))}"
            raise folder.refused(f"{name}, {tensor}", told, f"shape {list(expected)} by the checkpoint's settings")


def _expected(folder: Folder, name: str, shapes: Shapes, settings: Settings, vlm: VlmSettings | None) -> Shapes:
    """One tensor for every size that the settings name, of every layer."""
    layers = _layers(shapes, _TEXT)
    there = vlm.text_config.num_hidden_layers if vlm else layers
    wanted = min(settings.num_vlm_layers, there) if settings.num_vlm_layers > 0 else there
    experts = settings.num_expert_layers if settings.num_expert_layers > 0 else layers
    counted = [("language model", layers, wanted), ("expert", _layers(shapes, _EXPERT), experts)]
    if vlm is not None:
        counted.append(("vision encoder", _layers(shapes, _VISION), vlm.vision_config.num_hidden_layers))
    for kind, found, asked in counted:
        if found != asked:
            raise folder.refused(name, f"{found} layers of the {kind}", f"{asked} by the checkpoint's settings")
    if there > _UNUSED * layers:  # built whole before it is cut
        told = f"{there} layers for the {layers} that are used"
        raise folder.refused("vlm/config.json", told, f"at most {_UNUSED} times as many")
    width = vlm.text_config.hidden_size if vlm else (shapes.get("model.state_proj.weight") or (0,))[0]
    expert = int(width * settings.expert_width_multiplier)
    own: Shapes = {
        "model.state_proj.weight": (width, settings.max_state_dim),
        "model.action_in_proj.weight": (expert, settings.max_action_dim),
        "model.action_out_proj.weight": (settings.max_action_dim, expert),
    }
    own |= {f"{_EXPERT}{n}.mlp.gate_proj.weight": (_inner(expert), expert) for n in range(experts)}
    return own | (_of_vlm(vlm, layers) if vlm else {})


def _of_vlm(vlm: VlmSettings, layers: int) -> Shapes:
    text, vision = vlm.text_config, vlm.vision_config
    head = text.head_dim or text.hidden_size // text.num_attention_heads
    keys = text.num_key_value_heads or text.num_attention_heads
    patch, patches = vision.patch_size, (vision.image_size // vision.patch_size) ** 2
    found: Shapes = {
        f"{_VLM}text_model.embed_tokens.weight": (text.vocab_size, text.hidden_size),
        f"{_VLM}connector.modality_projection.proj.weight": (
            text.hidden_size,
            vision.hidden_size * vlm.scale_factor**2,
        ),
        f"{_VLM}vision_model.embeddings.patch_embedding.weight": (vision.hidden_size, 3, patch, patch),
        f"{_VLM}vision_model.embeddings.position_embedding.weight": (patches, vision.hidden_size),
    }
    for n in range(layers):
        found[f"{_TEXT}{n}.mlp.gate_proj.weight"] = (text.intermediate_size, text.hidden_size)
        found[f"{_TEXT}{n}.self_attn.q_proj.weight"] = (text.num_attention_heads * head, text.hidden_size)
        found[f"{_TEXT}{n}.self_attn.k_proj.weight"] = (keys * head, text.hidden_size)
    for n in range(vision.num_hidden_layers):
        found[f"{_VISION}{n}.mlp.fc1.weight"] = (vision.intermediate_size, vision.hidden_size)
    return found


def _inner(width: int) -> int:
    """The expert's feed-forward width, as LeRobot computes it."""
    return 256 * math.ceil(int(4 * int(2 * width / 3)) / 256)


def _layers(shapes: Shapes, prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d{1,6})\.")
    return len({found[1] for tensor in shapes if (found := pattern.match(tensor))})


def read_state(folder: Folder, name: str, features: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A normaliser's statistics: finite, and of their feature's shape where they name one.

    Args:
        folder: The checkpoint's.
        name: The file's.
        features: Of the step, to their shapes; statistics of others are left alone, as LeRobot leaves them.

    Raises:
        CheckpointError: A number is not finite, a deviation is negative, or a shape is another.
    """
    shapes_of(folder, name)
    try:
        found = load(folder.read(name, _STATE_BYTES))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise folder.refused(name, f"no statistics ({shown(str(error), quoted=False)})", _FORMAT) from error
    for tensor, values in found.items():
        where = f"{name}, {shown(tensor)}"
        feature, _, statistic = tensor.rpartition(".")
        if not np.isfinite(values).all():
            raise folder.refused(where, "numbers that are not finite", "finite ones")
        if statistic == "std" and (values < 0).any():
            raise folder.refused(where, "a negative deviation", "none below 0")
        known = features.get(feature)
        if known is not None and statistic in ("mean", "std", "min", "max") and not _fits(values, known["shape"]):
            raise folder.refused(where, f"shape {shown(list(values.shape))}", f"that of the feature, {known['shape']}")
    return found


def _fits(values: np.ndarray, shape: list[int]) -> bool:
    """Whether statistics are of a feature: of its shape, or, for a picture, one number a channel."""
    return list(values.shape) == shape or (len(shape) == 3 and values.size == shape[0])
