"""What the Hub has as smolvla_base and its vision-language model, at the embedded size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

CAMERAS = tuple(f"observation.images.camera{number}" for number in (1, 2, 3))


def smolvla_base(folder: Path) -> dict[str, Path]:
    """Lay out both repositories: the policy names its VLM by the Hub's name and does not carry it, as the real one.

    Returns:
        For the stand-in Hub: ``models/OWNER/NAME`` to folder.
    """
    from zk0.policy import embedded, portable
    from zk0.policy.checkpoint import FULL_VLM, save_checkpoint, with_stats
    from zk0.policy.start import build_nano

    vlm, policy = folder / "vlm", folder / "policy"
    embedded.write_vlm(vlm)
    unit = {"mean": np.zeros(6), "std": np.ones(6)}
    save_checkpoint(with_stats(build_nano(vlm, CAMERAS, seed=0), {"observation.state": unit, "action": unit}), policy)
    shutil.rmtree(policy / portable.VLM_FOLDER)
    for file in policy.glob("*.json"):
        file.write_text(file.read_text().replace(json.dumps(portable.VLM_FOLDER), json.dumps(FULL_VLM)))
    return {"models/lerobot/smolvla_base": policy, f"models/{FULL_VLM}": vlm}
