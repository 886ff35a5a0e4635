"""Build a SmolVLA: embedded size or full size, new or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.console import lerobot_quiet
from zk0.data.frames import ACTION, STATE
from zk0.policy import embedded
from zk0.seeding import seeded

FULL_VLM = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"


def _features(
    state: int, action: int, cameras: Mapping[str, tuple[int, int, int]]
) -> tuple[dict[str, PolicyFeature], dict[str, PolicyFeature]]:
    inputs = {STATE: PolicyFeature(FeatureType.STATE, (state,))}
    inputs |= {name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in cameras.items()}
    return inputs, {ACTION: PolicyFeature(FeatureType.ACTION, (action,))}


def build_nano(vlm: Path, cameras: tuple[str, ...], seed: int, frozen_backbone: bool = True) -> SmolVLAPolicy:
    """A new SmolVLA of about 2 M parameters.

    Args:
        vlm: Folder written by :func:`zk0.policy.embedded.write_vlm`.
        cameras: Image features, each 96 x 96.
        seed: Decides the initial weights.
        frozen_backbone: SmolVLA's fine-tuning default: only the action expert and the state
            projection train. False trains everything, as when the base is pretrained.
    """
    size = embedded.IMAGE_SIZE
    inputs, outputs = _features(6, 6, dict.fromkeys(cameras, (3, size, size)))
    config = SmolVLAConfig(
        vlm_model_name=str(vlm),
        load_vlm_weights=False,
        input_features=inputs,
        output_features=outputs,
        chunk_size=embedded.CHUNK,
        n_action_steps=embedded.CHUNK,
        max_state_dim=6,
        max_action_dim=6,
        resize_imgs_with_padding=(size, size),
        num_vlm_layers=4,
        tokenizer_max_length=24,
        num_steps=5,
        freeze_vision_encoder=frozen_backbone,
        train_expert_only=frozen_backbone,
        push_to_hub=False,
        device="cpu",
    )
    with seeded(seed), lerobot_quiet():
        return SmolVLAPolicy(config)


def build_full(
    state: int, action: int, cameras: Mapping[str, tuple[int, int, int]], seed: int, vlm: str = FULL_VLM
) -> SmolVLAPolicy:
    """The 450 M SmolVLA with random weights; for measuring, since the pretrained one is on the Hub.

    Args:
        state: Size of the state.
        action: Size of an action.
        cameras: Image features and their (3, H, W).
        seed: Decides the weights.
        vlm: Hub id or folder of the VLM's configuration and processor.
    """
    inputs, outputs = _features(state, action, cameras)
    config = SmolVLAConfig(
        vlm_model_name=vlm, load_vlm_weights=False, input_features=inputs, output_features=outputs, device="cpu"
    )
    with seeded(seed), lerobot_quiet():
        return SmolVLAPolicy(config)
