"""The tensors that SmolVLA's fine-tuning default trains, by shape, at full size and scaled down."""

from __future__ import annotations

import math

EXPERT_WIDTH = 720
MLP_WIDTH = 2048
VLM_WIDTH = 960
KEY_WIDTH = 320
LAYERS = 16
FULL = 99_880_992


def shapes_of(values: int = FULL) -> dict[str, tuple[int, ...]]:
    """Names and shapes of about ``values`` parameters, divided as the 450 M policy divides its 99.9 M.

    A smaller number takes fewer rows of each matrix, so that the number of tensors, which costs time of
    its own, stays.

    Args:
        values: Parameters wanted; the full number gives the policy's own shapes.
    """
    share = values / sum(math.prod(shape) for shape in _full().values())
    return {name: (max(1, round(shape[0] * share)), *shape[1:]) for name, shape in _full().items()}


def _full() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    expert = "model.vlm_with_expert.lm_expert"
    for layer in range(LAYERS):
        # Every second layer attends to the VLM's keys and values, the others to the expert's own as well.
        width = EXPERT_WIDTH if layer % 2 == 0 else KEY_WIDTH
        block = f"{expert}.layers.{layer}"
        shapes |= {
            f"{block}.self_attn.q_proj.weight": (VLM_WIDTH, EXPERT_WIDTH),
            f"{block}.self_attn.k_proj.weight": (KEY_WIDTH, width),
            f"{block}.self_attn.v_proj.weight": (KEY_WIDTH, width),
            f"{block}.self_attn.o_proj.weight": (EXPERT_WIDTH, VLM_WIDTH),
            f"{block}.mlp.gate_proj.weight": (MLP_WIDTH, EXPERT_WIDTH),
            f"{block}.mlp.up_proj.weight": (MLP_WIDTH, EXPERT_WIDTH),
            f"{block}.mlp.down_proj.weight": (EXPERT_WIDTH, MLP_WIDTH),
            f"{block}.input_layernorm.weight": (EXPERT_WIDTH,),
            f"{block}.post_attention_layernorm.weight": (EXPERT_WIDTH,),
        }
    shapes[f"{expert}.norm.weight"] = (EXPERT_WIDTH,)
    for name, rows, columns in (
        ("state_proj", VLM_WIDTH, 32),
        ("action_in_proj", EXPERT_WIDTH, 32),
        ("action_out_proj", 32, EXPERT_WIDTH),
        ("action_time_mlp_in", EXPERT_WIDTH, 2 * EXPERT_WIDTH),
        ("action_time_mlp_out", EXPERT_WIDTH, EXPERT_WIDTH),
    ):
        shapes |= {f"model.{name}.weight": (rows, columns), f"model.{name}.bias": (rows,)}
    return shapes
