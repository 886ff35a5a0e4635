"""Whatever a site sends, it moves the mean by at most clip / sites, and the noise is of that size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy import stats

from zk0.errors import StageError
from zk0.federation import codecs
from zk0.federation.privacy.accountant import BudgetSpent, planned_epsilon
from zk0.federation.privacy.central import CentralPrivacy, PrivateMean, public_part
from zk0.federation.privacy.mechanism import exact_norm
from zk0.params import PrivacyParams
from zk0.policy.trainable import TensorMismatch, Tensors

RARE = 1e-8
SILENT = 1e-30  # a noise multiplier whose noise float32 does not see
START: Tensors = {"a": torch.zeros(300), "b": torch.zeros(4, 64)}
PRIVATE = PrivacyParams(mode="central", clip_norm=0.5, noise_multiplier=1.0, target_epsilon=1e6)


def update(size: float, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(tensor.shape, generator=generator) * size for name, tensor in START.items()}


def central(tmp_path: Path, sites: int = 10, **changes: object) -> CentralPrivacy:
    return CentralPrivacy.open(PRIVATE.model_copy(update=changes), tmp_path, sites, sites)


@pytest.mark.parametrize("codec", sorted(codecs.CODECS))
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_what_was_decoded_is_no_longer_than_the_clip(codec: str, size: float) -> None:
    """A lossy codec's error and a site's residual may make an update longer: it is clipped after both."""
    coder = codecs.codec_named(codec)
    encoded, _ = codecs.encode_with_error(coder, update(size), update(size, seed=1))
    decoded = codecs.decode_all(coder, encoded)
    mean = PrivateMean(START, clip=0.5, noise_multiplier=SILENT, sites=1)

    norm = mean.fold(decoded, 1.0)

    assert norm == exact_norm(decoded)
    result = mean.finish()
    assert exact_norm(result) <= 0.5
    assert exact_norm(result) == pytest.approx(min(norm, 0.5), rel=1e-5)


def test_one_site_moves_the_mean_by_no_more_than_its_share() -> None:
    means = []
    for last in (0.0, 1e9):
        mean = PrivateMean(START, clip=0.5, noise_multiplier=SILENT, sites=4)
        for seed in range(3):
            mean.fold(update(1e-3, seed), 1.0)
        if last:
            mean.fold(update(last, 3), 1.0)
        means.append(mean.finish())

    moved = {name: means[1][name] - means[0][name] for name in START}
    assert exact_norm(moved) <= 0.5 / 4 * (1 + 1e-6)


def test_mean_is_over_all_sites_whoever_answers() -> None:
    mean = PrivateMean({"w": torch.zeros(2)}, clip=10.0, noise_multiplier=SILENT, sites=4)
    mean.fold({"w": torch.tensor([4.0, 0.0])}, 1.0)
    mean.fold({"w": torch.tensor([4.0, 8.0])}, 1.0)

    assert torch.allclose(mean.finish()["w"], torch.tensor([2.0, 2.0]))


def test_noise_on_the_mean_is_the_multiplier_times_a_sites_share() -> None:
    start = {"w": torch.zeros(300_000)}
    mean = PrivateMean(start, clip=0.5, noise_multiplier=2.0, sites=20)
    mean.fold(start, 1.0)

    values = mean.finish()["w"].double()

    assert mean.deviation == 2.0 * 0.5 / 20
    low, high = stats.chi2.ppf([RARE, 1 - RARE], len(values))
    assert low < float((values**2).sum()) / mean.deviation**2 < high


def test_updates_that_must_not_be_averaged_are_refused() -> None:
    mean = PrivateMean(START, clip=0.5, noise_multiplier=1.0, sites=2)

    with pytest.raises(ValueError, match="every site counts the same; got weight 3"):
        mean.fold(update(1.0), 3.0)
    with pytest.raises(TensorMismatch, match="'b' is missing"):
        mean.fold({"a": START["a"]}, 1.0)
    with pytest.raises(TensorMismatch, match="'a' has 300 non-finite values"):
        mean.fold(update(1.0) | {"a": torch.full((300,), float("nan"))}, 1.0)
    with pytest.raises(StageError, match="no update to average"):
        mean.finish()


def test_clip_begins_at_the_params_and_goes_on_from_the_state(tmp_path: Path) -> None:
    privacy = central(tmp_path)

    assert privacy.aggregator(START, {}).deviation == 1.0 * 0.5 / 10
    assert privacy.aggregator(START, {"clip_norm": 2.0}).deviation == 1.0 * 2.0 / 10


def test_training_loss_is_bounded_and_noised(tmp_path: Path) -> None:
    privacy = central(tmp_path, report_noise_multiplier=0.5, loss_bound=4.0)
    records = [{"train_loss": loss, "update_norm": 1.0} for loss in [1.0] * 8 + [float("inf"), -3.0]]

    told = torch.tensor([privacy.trained({}, records)[0]["train_loss"] for _ in range(4000)], dtype=torch.float64)

    deviation = 0.5 * (4.0 / 2) / 10
    errors = told - (8 * 1.0 + 4.0 + 0.0) / 10
    low, high = stats.chi2.ppf([RARE, 1 - RARE], len(errors))
    assert low < float((errors**2).sum()) / deviation**2 < high


def test_held_out_loss_is_charged_for(tmp_path: Path) -> None:
    privacy = central(tmp_path, report_noise_multiplier=1e-3, target_epsilon=1e9)

    loss = privacy.held_out(3, [1.0] * 10)

    assert loss == pytest.approx(1.0, abs=1e-3)
    assert [(c.round, c.what, c.noise_multiplier) for c in privacy.ledger.charges] == [(3, "evaluation", 1e-3)]
    tight = central(tmp_path / "other", report_noise_multiplier=1.0, target_epsilon=0.1)
    with pytest.raises(BudgetSpent):
        tight.held_out(0, [1.0])


def test_absent_site_pulls_a_loss_to_the_middle_of_its_range(tmp_path: Path) -> None:
    privacy = central(tmp_path, report_noise_multiplier=1e-3, loss_bound=4.0, target_epsilon=1e9)

    assert privacy.held_out(1, [1.0] * 5) == pytest.approx(1.5, abs=1e-3)


def test_adaptive_clip_follows_a_noisy_count(tmp_path: Path) -> None:
    privacy = central(tmp_path, sites=200, clip="adaptive")
    norms = torch.linspace(0.1, 2.0, 200, dtype=torch.float64)
    records = [{"train_loss": 1.0, "update_norm": float(norm)} for norm in norms]
    saved: dict[str, float] = {}
    clips = []
    for _ in range(150):
        row, clip = privacy.trained(saved, records)
        assert row["clip_norm"] == saved.get("clip_norm", 0.5)
        saved = {"clip_norm": clip}
        clips.append(clip)

    # The noise on the share is 10 * 0.5 / 200 = 0.025, so the clip wanders a little about the median, 1.05.
    assert sum(clips[50:]) / 100 == pytest.approx(1.05, rel=0.05)
    assert len(set(clips)) == 150


def test_fixed_clip_stays(tmp_path: Path) -> None:
    assert central(tmp_path).trained({}, [{"train_loss": 1.0, "update_norm": 99.0}])[1] == 0.5


def test_stop_says_what_is_spent(tmp_path: Path) -> None:
    privacy = central(tmp_path, target_epsilon=planned_epsilon(PRIVATE, 1) + 1e-9)

    assert privacy.stops(0) is None
    privacy.held_out(0, [1.0])
    assert privacy.stops(1) is None
    privacy.charge_training(1)
    privacy.held_out(1, [1.0])
    assert str(privacy.stops(2)).startswith("round 2 would exceed privacy.target_epsilon")
    with pytest.raises(BudgetSpent):
        privacy.charge_training(2)


def test_of_a_site_only_what_its_data_does_not_decide_is_told() -> None:
    record = {"examples": 32, "train_loss": 0.5, "train_s": 1.0, "update_norm": 3.0, "bytes_up": 8, "bytes_down": 9}

    assert public_part(record) == {"examples": 32, "bytes_up": 8, "bytes_down": 9}
