"""The closing table, where some tasks have no simulated scene."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from zk0.pipeline.summary import comparison_markdown, comparison_table
from zk0.records.results import Evaluation

REAL, ZERO = "real recordings have no simulated scene", "evaluation.rollouts is 0"


def task(reason: str | None, role: str = "site") -> dict[str, Any]:
    success = {"success_rate": 0.5, "success_low": 0.1, "success_high": 0.9, "rollouts": 2}
    measured = success if reason is None else dict.fromkeys(success) | {"rollouts": 0}
    model = {"action_error_deg": 2.0, "held_out_loss": 0.5, **measured}
    return {"role": role, "no_rollouts": reason, "base": model, "global": model}


def evaluation(**tasks: dict[str, Any]) -> Evaluation:
    models = {"models": {"digest": "d"}, "overall": {}, "safety": {"passed": True}}
    both = {key: {"base": content, "global": content} for key, content in models.items()}
    return Evaluation.model_validate({**both, "tasks": tasks})


def shown(**tasks: dict[str, Any]) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(comparison_table(evaluation(**tasks)))
    return captured.get()


def test_without_rollouts_there_is_no_column_and_a_reason() -> None:
    said = shown(kitchen=task(REAL), lab=task(REAL))

    assert "┃ success" not in said and "not measured ->" not in said
    assert f"success was not measured: {REAL}" in said
    assert "the models are compared by action error and held-out loss" in said


def test_tasks_without_rollouts_are_named_beside_those_that_have_some() -> None:
    said = shown(kitchen=task(REAL), red=task(None), purple=task(None, "unseen"))

    assert said.count("50% (10%-90%) -> 50% (10%-90%)") == 2 and "purple (unseen)" in said
    assert f"success was not measured on kitchen: {REAL}" in said
    assert "are compared by" not in said


def test_every_reason_is_told_in_markdown_too() -> None:
    said = comparison_markdown(evaluation(kitchen=task(REAL), red=task(ZERO)))

    assert said.splitlines()[0] == "| task | action error (deg) | held-out loss |"
    assert f"success was not measured on kitchen: {REAL}" in said
    assert f"success was not measured on red: {ZERO}" in said


def test_an_evaluation_of_an_earlier_version_gives_no_reason() -> None:
    old = task(ZERO)
    del old["no_rollouts"]

    assert "success was not measured: there were no rollouts" in shown(red=old)
