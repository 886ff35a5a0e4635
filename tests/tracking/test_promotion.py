"""Promotion and its way back: decided by kept evaluations, recorded, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from zk0.cli.app import app
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.params import PromotionParams
from zk0.tracking import TrackingError
from zk0.tracking.project import track
from zk0.tracking.promotion import demote, promote, read_promotion
from zk0.tracking.registry import champion

Spread = Callable[..., list[bool]]
Content = Callable[[Path], dict[str, str]]
NAME = "zk0-smolvla"
PARAMS = PromotionParams()
PARAMS_FILE = """
policy: {base: "random:nano"}
data: {sites: {red-cube: "sim:push-red-cube-left"}}
"""


@pytest.fixture
def store(tracked: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tracked}/mlflow.db")


def champion_of(store: MlflowClient) -> int | None:
    aliases = store.get_registered_model(NAME).aliases
    return int(aliases["champion"]) if "champion" in aliases else None


def tags(store: MlflowClient, version: int) -> dict[str, str]:
    found: dict[str, str] = store.get_model_version(NAME, str(version)).tags
    return found


@pytest.fixture
def sites(spread: Spread) -> Callable[[float, float], dict[str, Any]]:
    """Two sites on which base and global model succeed in these shares of 50 scenes."""

    def make(base: float, new: float) -> dict[str, Any]:
        return {task: (spread(base), spread(new)) for task in ("red-cube", "green-ball")}

    return make


def test_the_first_champion_has_to_beat_the_base(
    tracked: Path, files: Any, sites: Any, store: MlflowClient, content: Content
) -> None:
    files.evaluated(tracked, sites(0.1, 0.8))

    result = track(tracked, "zk0", NAME, promotion=PARAMS)

    assert result.promotion is not None and result.promotion.promoted
    assert result.promotion.decision.against == "the base policy"
    assert champion_of(store) == 1
    assert tags(store, 1) | {"zk0.promotion": "promoted", "zk0.promotion.reasons": "none"} == tags(store, 1)
    run = store.get_run(result.run_id)
    assert run.data.tags["zk0.promotion"] == "promoted"
    record = json.loads((tracked / run.info.artifact_uri / "results/promotion.json").read_text())
    assert record["comparison"]["overall"]["site"]["value"] == pytest.approx(0.7)
    assert (record["outcome"], record["champion_before"]) == ("promoted", None)
    assert read_promotion(tracked, NAME, 1) == result.promotion
    before = content(tracked)
    assert track(tracked, "zk0", NAME, promotion=PARAMS).promotion is None
    assert content(tracked) == before


def test_a_challenger_that_is_no_better_is_refused_with_its_reasons(
    tracked: Path, files: Any, sites: Any, store: MlflowClient
) -> None:
    files.evaluated(tracked, sites(0.5, 0.52), safe=False)

    result = track(tracked, "zk0", NAME, promotion=PARAMS)

    assert result.promotion is not None and not result.promotion.promoted
    assert champion_of(store) is None
    assert store.get_model_version_by_alias(NAME, "challenger").version == 1
    said = tags(store, 1)["zk0.promotion.reasons"]
    assert "the safety check failed: joint speed, rollouts; not shown to be better than the base policy" in said
    assert tags(store, 1)["zk0.promotion.against"] == "the base policy"


def test_without_being_asked_the_champion_stays(tracked: Path, files: Any, sites: Any, store: MlflowClient) -> None:
    files.evaluated(tracked, sites(0.1, 0.8))

    assert track(tracked, "zk0", NAME).promotion is None
    assert champion_of(store) is None and "zk0.promotion" not in tags(store, 1)


def test_without_an_evaluation_nothing_is_decided(tracked: Path, store: MlflowClient) -> None:
    assert track(tracked, "zk0", NAME, promotion=PARAMS).promotion is None


def test_a_challenger_meets_the_champions_own_evaluation(
    tracked: Path, files: Any, sites: Any, store: MlflowClient
) -> None:
    """Both started from the base; the second is far better than that, but not than the champion."""
    files.evaluated(tracked, sites(0.1, 0.8))
    track(tracked, "zk0", NAME, promotion=PARAMS)
    files.next_run(tracked, 2)
    files.evaluated(tracked, sites(0.1, 0.8))

    second = track(tracked, "zk0", NAME, promotion=PARAMS).promotion

    assert second is not None and not second.promoted and second.decision.against == "version 1"
    files.next_run(tracked, 3)
    files.evaluated(tracked, sites(0.1, 0.98))
    third = track(tracked, "zk0", NAME, promotion=PARAMS).promotion
    assert third is not None and third.promoted and third.before == 1
    assert champion_of(store) == 3


def test_a_run_that_started_from_the_champion_judged_it_beside_its_own(
    tracked: Path, files: Any, sites: Any, store: MlflowClient
) -> None:
    """The data has grown since, so the champion's own evaluation would not fit."""
    files.evaluated(tracked, sites(0.1, 0.8), settings={"max_steps": 20})
    track(tracked, "zk0", NAME, promotion=PARAMS)
    digest = digest_folder(tracked / "checkpoints/best")
    files.next_run(tracked, 2)
    files.evaluated(tracked, sites(0.5, 0.9), base_digest=digest)

    result = track(tracked, "zk0", NAME, promotion=PARAMS).promotion

    assert result is not None and result.promoted and result.decision.against == "version 1"
    assert result.decision.comparison is not None
    assert result.decision.comparison.tasks["red-cube"].b == 0.5


def test_scenes_that_do_not_match_are_a_reason(tracked: Path, files: Any, sites: Any, store: MlflowClient) -> None:
    files.evaluated(tracked, sites(0.1, 0.5), settings={"max_steps": 20})
    track(tracked, "zk0", NAME, promotion=PARAMS)
    files.next_run(tracked, 2)
    files.evaluated(tracked, sites(0.1, 0.9))

    result = track(tracked, "zk0", NAME, promotion=PARAMS).promotion

    assert result is not None and not result.promoted
    assert "version 1 met sim:touch-red-cube, max_steps 20" in result.decision.reasons[0]


def test_a_champion_that_was_never_evaluated_is_a_reason(
    tracked: Path, files: Any, sites: Any, store: MlflowClient
) -> None:
    promote(tracked, NAME, 1, PARAMS, force=True)
    files.next_run(tracked, 2)
    files.evaluated(tracked, sites(0.1, 0.9))

    result = track(tracked, "zk0", NAME, promotion=PARAMS).promotion

    assert result is not None
    assert result.decision.reasons == (
        "the champion, version 1, was never evaluated: `zk0 model show 1` leads back to it",
    )


def test_a_new_evaluation_is_decided_anew(tracked: Path, files: Any, sites: Any, store: MlflowClient) -> None:
    files.evaluated(tracked, sites(0.5, 0.52))
    track(tracked, "zk0", NAME, promotion=PARAMS)
    files.evaluated(tracked, sites(0.1, 0.9))

    result = track(tracked, "zk0", NAME, promotion=PARAMS).promotion

    assert result is not None and result.promoted
    assert tags(store, 1)["zk0.promotion"] == "promoted"


def test_promotion_by_hand_passes_the_same_gate(tracked: Path, files: Any, sites: Any, store: MlflowClient) -> None:
    files.evaluated(tracked, sites(0.5, 0.52))
    track(tracked, "zk0", NAME)

    refused = promote(tracked, NAME, 1, PARAMS)
    assert (refused.outcome, champion_of(store)) == ("refused", None)

    forced = promote(tracked, NAME, 1, PARAMS, force=True)
    assert (forced.outcome, champion_of(store)) == ("forced", 1)
    assert forced.decision.reasons == refused.decision.reasons
    assert tags(store, 1)["zk0.promotion"] == "forced"
    assert tags(store, 1)["zk0.promotion.reasons"].startswith("not shown to be better")


def test_what_was_never_evaluated_goes_only_by_force(tracked: Path, store: MlflowClient) -> None:
    with pytest.raises(TrackingError, match=r"'zk0-smolvla', version 1, was never evaluated: .*`zk0 model show 1`"):
        promote(tracked, NAME, 1, PARAMS)

    forced = promote(tracked, NAME, 1, PARAMS, force=True)

    assert forced.decision.reasons == ("it was never evaluated",)
    assert champion(tracked, NAME) is not None
    with pytest.raises(TrackingError, match="is the champion already"):
        promote(tracked, NAME, 1, PARAMS, force=True)


def test_demotion_goes_back_step_by_step(tracked: Path, files: Any, sites: Any, store: MlflowClient) -> None:
    for day, new in ((1, 0.5), (2, 0.8), (3, 1.0)):
        files.next_run(tracked, day)
        files.evaluated(tracked, sites(0.1, new))
        track(tracked, "zk0", NAME, promotion=PARAMS)
    best = int(store.get_model_version_by_alias(NAME, "champion").version)

    assert demote(tracked, NAME) == (best, best - 1)
    # Tracking the same evaluation again does not bring a demoted champion back.
    assert track(tracked, "zk0", NAME, promotion=PARAMS).promotion is None
    assert champion_of(store) == best - 1
    # By hand it may come back, and then knows its way once more.
    assert promote(tracked, NAME, best, PARAMS).before == best - 1
    assert [demote(tracked, NAME)[1] for _ in range(3)] == [best - 1, best - 2, None]
    with pytest.raises(TrackingError, match="has no champion; `zk0 promote VERSION` makes one"):
        demote(tracked, NAME)


def test_demotion_to_a_version_that_is_gone_is_refused(
    tracked: Path, files: Any, sites: Any, store: MlflowClient
) -> None:
    promote(tracked, NAME, 1, PARAMS, force=True)
    files.next_run(tracked, 2)
    files.evaluated(tracked, sites(0.1, 0.9))
    track(tracked, "zk0", NAME)
    promote(tracked, NAME, 2, PARAMS, force=True)
    store.delete_model_version(NAME, "1")

    with pytest.raises(TrackingError, match="has no version 1; there are: 2"):
        demote(tracked, NAME)
    assert champion_of(store) == 2


@pytest.mark.parametrize("broken", ["set_model_version_tag", "set_tag", "set_registered_model_alias"])
def test_a_failed_promotion_leaves_nothing_behind(
    tracked: Path, files: Any, sites: Any, store: MlflowClient, content: Content,
    monkeypatch: pytest.MonkeyPatch, broken: str,
) -> None:  # fmt: skip
    """The last call of its kind fails: everything before it is taken back."""
    files.evaluated(tracked, sites(0.1, 0.9))
    track(tracked, "zk0", NAME)
    before = visible(store, tracked)
    calls = {"set_model_version_tag": 4, "set_tag": 3, "set_registered_model_alias": 1}[broken]
    real, seen = getattr(MlflowClient, broken), []

    def fail(*given: object, **named: object) -> object:
        seen.append(given)
        if len(seen) == calls:
            raise ConnectionError("cut off")
        return real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, broken, fail)
        with pytest.raises(ConnectionError):
            promote(tracked, NAME, 1, PARAMS)

    assert len(seen) >= calls
    assert visible(store, tracked) == before
    assert promote(tracked, NAME, 1, PARAMS).promoted


def test_a_failed_promotion_takes_the_registration_back(
    trained: Path, files: Any, sites: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered, challenger, tagged, recorded; then the champion's alias cannot be set."""
    files.evaluated(trained, sites(0.1, 0.9))
    real = MlflowClient.set_registered_model_alias

    def fail(self: MlflowClient, name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise ConnectionError("cut off")
        real(self, name, alias, version)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_alias", fail)
        with pytest.raises(ConnectionError):
            track(trained, "zk0", NAME, promotion=PARAMS)
    store = MlflowClient(f"sqlite:///{trained}/mlflow.db")
    assert store.search_registered_models() == [] and store.search_model_versions() == []
    assert list((trained / "mlruns").rglob("promotion.json")) == []

    result = track(trained, "zk0", NAME, promotion=PARAMS)

    assert result.promotion is not None and result.promotion.promoted
    assert champion_of(store) == result.model_version
    assert len(store.search_model_versions()) == 1


def visible(store: MlflowClient, root: Path) -> Any:
    """Aliases, tags and descriptions of the versions, the runs' tags, and the records of decisions."""
    versions = [store.get_model_version(NAME, v.version) for v in store.search_model_versions()]
    runs = [store.get_run(str(v.run_id)) for v in versions]
    return (
        store.get_registered_model(NAME).aliases,
        [(v.version, v.tags, v.description) for v in versions],
        [run.data.tags for run in runs],
        sorted(file.read_text() for file in (root / "mlruns").rglob("promotion.json")),
    )


def test_commands(tracked: Path, files: Any, sites: Any, store: MlflowClient) -> None:
    files.evaluated(tracked, sites(0.5, 0.52))
    track(tracked, "zk0", NAME)
    Path("params.yaml").write_text(PARAMS_FILE)

    refused = CliRunner().invoke(app, ["promote", "1"])
    assert isinstance(refused.exception, StageError)
    assert "`zk0 promote 1 --force`" in str(refused.exception)
    assert "compared with the base policy" in refused.output and "not shown to be better" in refused.output

    forced = CliRunner().invoke(app, ["promote", "1", "--force"], catch_exceptions=False)
    assert "zk0-smolvla version 1 is the champion, by force" in forced.output
    demoted = CliRunner().invoke(app, ["demote"], catch_exceptions=False)
    assert "version 1 is no longer the champion; there is no champion now" in demoted.output
    assert champion_of(store) is None


def test_a_version_whose_checkpoint_is_gone_is_refused_before_anything(
    tracked: Path, files: Any, sites: Any, store: MlflowClient
) -> None:
    files.evaluated(tracked, sites(0.1, 0.9))
    track(tracked, "zk0", NAME)
    shutil.rmtree(tracked / "mlruns/1/models")
    before = visible(store, tracked)

    with pytest.raises(TrackingError, match="version 1, are gone"):
        promote(tracked, NAME, 1, PARAMS)
    assert visible(store, tracked) == before
