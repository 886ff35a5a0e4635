"""A site clips and noises what it sends, counts it over all runs, and does no less than its owner demands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from zk0.federation.privacy.accountant import BudgetSpent, planned_epsilon
from zk0.federation.privacy.mechanism import exact_norm
from zk0.federation.privacy.site import SitePrivacy, demanded, settings_of
from zk0.params import PrivacyParams
from zk0.policy.trainable import TensorMismatch

RARE = 1e-8
ASKED = PrivacyParams(mode="site", clip_norm=0.5, noise_multiplier=2.0, target_epsilon=1e9)
OFF = PrivacyParams()


def privacy_of(root: Path, asked: PrivacyParams = ASKED, **config: Any) -> SitePrivacy:
    found = SitePrivacy.of(asked, {"project": str(root), "partition-id": 3} | config)
    assert found is not None
    return found


def test_neither_server_nor_owner_wants_it() -> None:
    config = {"project": "/nowhere", "partition-id": 0}

    assert SitePrivacy.of(OFF, config) is None
    assert SitePrivacy.of(ASKED.model_copy(update={"mode": "central"}), config) is None


def test_owner_and_server_both_get_the_stricter() -> None:
    config = {"privacy-noise-multiplier": 3, "privacy-clip-norm": 9.0, "privacy-target-epsilon": 4.0, "partition-id": 0}

    found = settings_of(ASKED, config)

    assert found is not None and found.mode == "site"
    assert (found.noise_multiplier, found.clip_norm, found.target_epsilon) == (3.0, 0.5, 4.0)


def test_owners_demand_holds_though_the_server_asks_for_nothing() -> None:
    found = settings_of(OFF, {"privacy-noise-multiplier": 0.5})

    assert found is not None and found.mode == "site" and found.noise_multiplier == OFF.noise_multiplier


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"privacy-noise": 1.0}, "'privacy-noise', which is no privacy setting"),
        ({"privacy-clip-norm": "small"}, "privacy-clip-norm = 'small', expected a number"),
        ({"privacy-clip-norm": True}, "expected a number"),
    ],
)
def test_demand_that_makes_no_sense_is_refused(config: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        demanded(config)


def test_demand_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        settings_of(ASKED, {"privacy-clip-norm": -1.0})


def test_what_is_sent_is_clipped_and_noised(tmp_path: Path) -> None:
    size = 300_000
    update, residual = {"w": torch.full((size,), 1.0)}, {"w": torch.full((size,), 5.0)}

    sent = privacy_of(tmp_path).update(1, update, residual)["w"].double()

    # Whatever went in, what is left of it has norm 0.5 and lies along the same line.
    errors = sent - 0.5 / size**0.5
    low, high = stats.chi2.ppf([RARE, 1 - RARE], size)
    assert low < float((errors**2).sum()) / (2.0 * 0.5) ** 2 < high
    assert torch.equal(residual["w"], torch.full((size,), 5.0))


def test_clip_counts_what_the_codec_left_over(tmp_path: Path) -> None:
    quiet = ASKED.model_copy(update={"noise_multiplier": 1e-30, "target_epsilon": 1e300})
    update, residual = {"w": torch.tensor([0.3, 0.0])}, {"w": torch.tensor([0.3, 0.0])}

    sent = privacy_of(tmp_path, quiet).update(1, update, residual)

    assert exact_norm(sent) <= 0.5 and sent["w"][0] == pytest.approx(0.5, rel=1e-5)


def test_residual_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TensorMismatch, match="residual of 'v'"):
        privacy_of(tmp_path).update(1, {"w": torch.zeros(2)}, {"v": torch.zeros(2)})
    with pytest.raises(TensorMismatch, match="norm is nan"):
        privacy_of(tmp_path).update(1, {"w": torch.tensor([float("nan")])}, {})
    assert privacy_of(tmp_path).ledger.charges == []


def test_losses_are_bounded_and_noised(tmp_path: Path) -> None:
    asked = ASKED.model_copy(update={"report_noise_multiplier": 0.1, "loss_bound": 3.0})
    privacy = privacy_of(tmp_path, asked)

    errors = torch.tensor([privacy.training_loss(99.0) - 3.0 for _ in range(3000)], dtype=torch.float64)

    low, high = stats.chi2.ppf([RARE, 1 - RARE], len(errors))
    assert low < float((errors**2).sum()) / (0.1 * 1.5) ** 2 < high


def test_spending_is_counted_over_all_runs(tmp_path: Path) -> None:
    tight = ASKED.model_copy(update={"target_epsilon": planned_epsilon(ASKED, 1) + 1e-9})
    first = privacy_of(tmp_path, tight)
    first.held_out_loss(0, 1.0)
    first.update(1, {"w": torch.zeros(2)}, {})
    first.held_out_loss(1, 1.0)

    again = privacy_of(tmp_path, tight)  # another run, or another process

    assert again.ledger.epsilon == first.ledger.epsilon > 0
    with pytest.raises(BudgetSpent):
        again.update(1, {"w": torch.zeros(2)}, {})
    with pytest.raises(BudgetSpent):
        again.held_out_loss(1, 1.0)
    assert (tmp_path / "state" / "privacy" / "site-0003.json").exists()
