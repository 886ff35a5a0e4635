"""Task context: the whole template, from what is there and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from docs_commands import path_of

from zk0.context import StageOutcome, build_context, render_markdown, write_context
from zk0.files import read_json, write_json, write_text
from zk0.records.paths import SITE_SUMMARY

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIELDS = {
    "in_short": ["trained_on", "left_the_machine", "came_of_it", "what_next"],
    "task_information": ["task_id", "parent_task", "created", "mode", "priority"],
    "project_constraints": ["document", "items"],
    "task_description": ["objective", "scope", "success_criteria"],
    "technical_context": ["current_state", "dependencies", "constraints"],
    "context_to_preserve": ["critical_information", "key_decisions", "assumptions"],
    "subtask_requirements": ["context_inheritance", "handover_information", "validation_points"],
    "risk_mitigation": ["potential_context_loss_points", "recovery_procedures", "prevention_measures"],
    "quality_assurance": ["pre_task_checklist", "post_task_validation"],
    "mode_transition_notes": ["notes"],
    "capture": ["captured_by", "last_updated", "version"],
}
TEMPLATE = """
### In Short
**Trained On**:
**Left This Machine**:
**Came of It**:
**What to Do Next**:
### Task Information
**Task ID**:
**Parent Task**:
**Created**:
**Mode**:
**Priority**:
### Project Constraints (MANDATORY)
### Task Description
**Objective**:
**Scope**:
**Success Criteria**:
### Technical Context
**Current State**:
**Dependencies**:
**Constraints**:
### Context to Preserve
**Critical Information**:
**Key Decisions**:
**Assumptions**:
### Subtask Requirements
**Context Inheritance**:
**Handover Information**:
**Validation Points**:
### Risk Mitigation
**Potential Context Loss Points**:
**Recovery Procedures**:
**Prevention Measures**:
### Quality Assurance
**Pre-Task Checklist**:
**Post-Task Validation**:
### Mode Transition Notes
**Context Captured by**:
**Last Updated**:
**Version**:
"""
PRE_TASK = [
    "All constraints verified",
    "Context fully captured",
    "Success criteria defined",
    "Dependencies identified",
]
POST_TASK = [
    "Success criteria met",
    "Context preserved",
    "Documentation updated",
    "Quality standards maintained",
]
STAGES = ("validate", "prepare", "federate", "evaluate", "benchmark", "report")


def steps(*names: str, failed: str | None = None) -> list[StageOutcome]:
    return [StageOutcome(name, "Failed" if name == failed else "Completed", 1.5) for name in names]


def build(root: Path, stages: list[StageOutcome], **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "flow": "federate",
        "task_id": "run-1",
        "parent_id": None,
        "created": "2026-01-01T10:00:00+00:00",
        "mode": "manual",
        "priority": "Medium",
        "outcome": "Completed",
        **changes,
    }
    return build_context(root, stages=stages, **given)


def items(context: dict[str, Any], section: str, field: str) -> dict[str, dict[str, Any]]:
    return {item["item"]: item for item in context[section][field]["value"]}


def judged(error: float, base_error: float, role: str = "site") -> dict[str, Any]:
    return {"role": role, "base": {"action_error_deg": base_error}, "global": {"action_error_deg": error}}


def edit(root: Path, name: str, *keys: str, value: Any) -> None:
    """Change one entry of a result."""
    content = read_json(root / name)
    entry = content
    for key in keys[:-1]:
        entry = entry[key]
    entry[keys[-1]] = value
    write_json(root / name, content)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    return tmp_path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project after a whole run of two sites, one round of which left a site out."""
    write_text(
        tmp_path / "params.yaml",
        "policy: {base: base}\n"
        "data:\n  sites: {a: 'sim:touch-red-cube', b: 'hub:owner/name@main'}\n  unseen: {c: 'sim:push-blue-block'}\n"
        "federation: {rounds: 2}\n",
    )
    write_text(tmp_path / "constraints.md", "# Rules\n- Data stays.\n- Files are whole.\n")
    write_json(
        tmp_path / "results/environment.json",
        {
            "created": "2026-01-01T10:00:05+00:00",
            "passed": True,
            "checks": [
                {"name": "python", "passed": True, "severity": "error", "found": "3.12.1"},
                {"name": "hub token", "passed": False, "severity": "warning", "found": "no token"},
            ],
            "machine": {"cores": 2, "memory_bytes": 8 << 30, "disk_free_bytes": 50 << 30, "gpus": []},
            "packages": {"torch": "2.11.0"},
        },
    )
    write_json(
        tmp_path / "sources.lock.json",
        {
            "sources": {
                "a": {"source": "sim:touch-red-cube", "digest": "aa"},
                "b": {"source": "hub:owner/name@main", "digest": COMMIT},
            },
            "unseen": {"c": {"source": "sim:push-blue-block", "digest": "cc"}},
            "policy": {"source": "base", "digest": "ba5e"},
        },
    )
    (tmp_path / "data/manifests").mkdir(parents=True)
    left_out: list[dict[str, str]] = [{}, {"b": "not finite"}, {}]
    rows = [{"round": number, "held_out_loss": 0.5, "left_out": who} for number, who in enumerate(left_out)]
    write_text(tmp_path / "results/federation/rounds.jsonl", "\n".join(map(json.dumps, rows)))
    write_json(
        tmp_path / "results/federation/run.json",
        {
            "run": "feedfeedfeedfeed",
            "started": "2026-01-01T10:00:00+00:00",
            "ended": "2026-01-01T10:01:00+00:00",
            "params": {},
            "git": {"revision": None, "dirty": False},
            "base": {"source": "base", "digest": "ba5e"},
            "sites": {
                "a": {"source": "sim:touch-red-cube", "revision": "aa", "digest": "da"},
                "b": {"source": "hub:owner/name@main", "revision": COMMIT, "digest": "db"},
            },
            "rounds": 2,
            "best_round": 2,
            "best_held_out_loss": 0.4,
            "start_held_out_loss": 0.6,
            "resumed_at_rounds": [1],
            "checkpoints": {
                "best": {"path": "checkpoints/best", "digest": "be57"},
                "last": {"path": "checkpoints/last", "digest": "1a57"},
            },
        },
    )
    for name in ("best", "last"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    write_json(
        tmp_path / "results/evaluation.json",
        {
            "models": {"base": {"digest": "ba5e"}, "global": {"digest": "be57"}},
            "tasks": {"a": judged(2.0, 3.0), "b": judged(4.0, 5.0), "c": judged(9.0, 8.0, "unseen")},
            "overall": {"base": {"success_rate_seen": 0.25}, "global": {"success_rate_seen": 0.5}},
            "safety": {
                "base": {"passed": True},
                "global": {"passed": True, "checks": [{"name": "joint ranges, held-out", "passed": True}]},
            },
        },
    )
    write_json(tmp_path / "results/benchmark.json", {"created": "2026-01-01T10:00:50+00:00", "rows": []})
    write_text(tmp_path / "results/report.html", "<html></html>")
    return tmp_path


@pytest.mark.parametrize("where", ["empty", "project"])
def test_every_field_of_the_template_is_there(where: str, request: pytest.FixtureRequest) -> None:
    context = build(request.getfixturevalue(where), steps(*STAGES))

    assert {section: list(fields) for section, fields in context.items()} == FIELDS
    for fields in context.values():
        for content in fields.values():
            assert content["value"] if "value" in content and content["value"] is not None else content["why_empty"]
    assert list(items(context, "quality_assurance", "pre_task_checklist")) == PRE_TASK
    assert list(items(context, "quality_assurance", "post_task_validation")) == POST_TASK


def test_nothing_is_invented_without_results(empty: Path) -> None:
    context = build(empty, [])

    for section, fields in FIELDS.items():
        if section in ("task_information", "quality_assurance", "capture"):
            continue
        for name in fields:
            if name not in ("validation_points", "current_state"):
                assert context[section][name]["value"] is None, name
    assert "params.yaml not found" in context["context_to_preserve"]["assumptions"]["why_empty"]
    assert context["technical_context"]["current_state"]["value"] == {"outcome": "Completed"}
    assert all(i["passed"] is None for i in items(context, "subtask_requirements", "validation_points").values())
    before = items(context, "quality_assurance", "pre_task_checklist")
    assert [before[name]["passed"] for name in PRE_TASK] == [None, False, False, None]
    assert all(i["passed"] is None for i in items(context, "quality_assurance", "post_task_validation").values())


def test_whole_run_passes_every_check(project: Path) -> None:
    context = build(project, steps(*STAGES))

    criteria = items(context, "task_description", "success_criteria")
    assert criteria["global action error lower than base on every site"]["evidence"] == "2 of 2"
    assert criteria["held-out loss of the best round lower than at the start"]["evidence"] == "0.4000, was 0.6000"
    assert criteria["global success rate on the sites' tasks higher than base"]["evidence"] == "50%, base 25%"
    for field in ("pre_task_checklist", "post_task_validation"):
        for item in items(context, "quality_assurance", field).values():
            assert item["passed"] is True and item["evidence"], item
    critical = context["context_to_preserve"]["critical_information"]["value"]
    assert critical["run"] == "feedfeedfeedfeed" and critical["base digest"] == "ba5e"
    assert critical["dataset digests"] == {"a": "da", "b": "db"}
    assert critical["checkpoint digests"] == {"best": "be57", "last": "1a57"}
    assert len(critical["params digest"]) == 32 and "of an earlier run" not in critical


def short(context: dict[str, Any]) -> dict[str, Any]:
    return {name: field["value"] for name, field in context["in_short"].items()}


def test_what_an_owner_asks_comes_first(project: Path) -> None:
    recorded = {"train_episodes": [0, 1, 2], "held_out_episodes": [3], "train_frames": 1170, "fps": 10}
    edit(project, "results/federation/run.json", "sites", "a", value={"source": "sim:touch-red-cube", **recorded})
    edit(project, "results/federation/run.json", "privacy", value={"mode": "site", "epsilon": 7.912, "delta": 1e-5})
    rows = [{"round": n, "held_out_loss": 0.5, "bytes_up": n * 2_000_000, "bytes_down": 4_000_000} for n in range(3)]
    write_text(project / "results/federation/rounds.jsonl", "\n".join(map(json.dumps, rows)))
    driven = {"sentence": "touch the red cube", **judged(2.0, 3.0)}
    driven["global"] |= {"rollouts": 50, "successes": 31}
    driven["base"] |= {"rollouts": 50, "successes": 5}
    edit(project, "results/evaluation.json", "tasks", "a", value=driven)

    context = build(project, steps(*STAGES))

    told = short(context)
    assert told["trained_on"] == [
        "a: 3 episodes (1 min 57 s), and 1 kept to judge by",
        "b: hub:owner/name@main",
    ]
    assert told["left_the_machine"] == [
        "nothing: all sites trained on this machine; over a network they would have sent 6.00 MB and received 12.0 MB "
        "in 2 rounds",
        "noise hides what one site contributes: epsilon 7.91 at delta 1e-05",
    ]
    assert told["came_of_it"] == [
        "touch the red cube: 31 of 50 tries succeed (before: 5 of 50); "
        "2.00° from what was recorded, a joint on average (before: 3.00°)",
        "b: 4.00° from what was recorded, a joint on average (before: 5.00°)",
        "safety check: passed",
    ]
    text = render_markdown(context)
    assert text.index("### In Short") < text.index("### Task Information")
    assert "- touch the red cube: 31 of 50 tries succeed" in text


def test_an_owner_is_told_to_let_an_unsafe_model_drive_no_arm(project: Path) -> None:
    failing = [{"name": "jerk, rollouts", "passed": False}]
    edit(project, "results/evaluation.json", "safety", "global", value={"passed": False, "checks": failing})

    told = short(build(project, steps(*STAGES)))

    assert told["came_of_it"][-1] == "safety check: not passed (jerk, rollouts): let it drive no arm"
    assert len(told["what_next"]) == 1 and told["what_next"][0].startswith("Its targets are restless. More rounds")


def test_a_site_of_a_network_is_told_what_left_it(project: Path) -> None:
    turn = {"judged": True, "bytes_up": 1_500_000, "bytes_down": 3_000_000}
    rounds = [{**turn, "held_out_loss": loss} for loss in (0.9, 0.45)]
    write_json(project / SITE_SUMMARY, {"connected": True, "state": "connected as node 7", "rounds": rounds})

    told = short(build(project, steps("training loop", "logging and monitoring"), flow="client"))

    assert told["left_the_machine"] == [
        "3.00 MB to the server, in 2 rounds: updates of the model, means and losses; 6.00 MB came back",
        "no recording, no picture, and nothing that was computed of a single frame",
    ]
    assert told["came_of_it"] == ["loss on your kept episodes 0.9 after the first round, 0.45 after the last"]
    assert told["what_next"][0].startswith(f"`zk0 client status {project.name}` shows")


@pytest.mark.parametrize("flow", ["federate", "train", "client"])
def test_the_commands_that_go_on_are_commands(project: Path, flow: str) -> None:
    told = short(build(project, steps(*STAGES), flow=flow))["what_next"]

    lines = [line for one in told for line in re.findall("`(.*?)`", one)]
    assert lines
    for line in lines:
        path_of(line.replace("VERSION", "3").replace("FOLDER", "arm"))


def test_without_recordings_there_is_nothing_for_an_owner(project: Path) -> None:
    fields = build(project, steps("security setup"), flow="deploy")["in_short"].values()

    assert {field["why_empty"] for field in fields} == {"the deploy flow uses no recording"}


def test_decisions_and_assumptions_are_those_of_the_run(project: Path) -> None:
    preserve = build(project, steps(*STAGES))["context_to_preserve"]

    decisions = {d["decision"]: d["why"] for d in preserve["key_decisions"]["value"]}
    assert decisions["start from base"] == "policy.base in params.yaml"
    assert decisions["round 1 without b"] == "not finite"
    assert decisions["round 2 is the best"] == "lowest held-out loss: 0.4"
    assert "resumed at round 1" in decisions
    assert "it works although hub token is not as expected: no token" in preserve["assumptions"]["value"]


def test_champion_as_start_is_a_decision(project: Path) -> None:
    edit(project, "sources.lock.json", "policy", "source", value="champion")

    decisions = build(project, steps(*STAGES))["context_to_preserve"]["key_decisions"]["value"]

    assert decisions[0] == {"decision": "start from champion", "why": "ZK0_BASE when validated"}


def test_worse_model_does_not_meet_the_criteria(project: Path) -> None:
    edit(project, "results/evaluation.json", "tasks", "b", value=judged(6.0, 5.0))
    failing = [{"name": "joint ranges, held-out", "passed": False}]
    edit(project, "results/evaluation.json", "safety", "global", value={"passed": False, "checks": failing})

    context = build(project, steps(*STAGES))

    criteria = items(context, "task_description", "success_criteria")
    assert criteria["global action error lower than base on every site"]["evidence"] == "1 of 2"
    after = items(context, "quality_assurance", "post_task_validation")
    assert after["Success criteria met"]["passed"] is False
    assert after["Quality standards maintained"]["passed"] is False
    assert "joint ranges, held-out" in criteria["global model passes the safety check"]["evidence"]
    text = render_markdown(context)
    assert "- [ ] Success criteria met (failed: " in text and "- [x] Documentation updated" in text


def test_run_that_stopped_early_is_complete(project: Path) -> None:
    params = (project / "params.yaml").read_text().replace("{rounds: 2}", "{rounds: 9, stop_after: 1}")
    write_text(project / "params.yaml", params)
    name = "9 federated rounds completed, or stopped early"
    cut_short = items(build(project, steps(*STAGES)), "task_description", "success_criteria")[name]

    edit(project, "results/federation/run.json", "stopped", value="no round was better")
    stopped = items(build(project, steps(*STAGES)), "task_description", "success_criteria")[name]

    assert cut_short["passed"] is False and cut_short["evidence"] == "2 rounds"
    assert stopped["passed"] is True and stopped["evidence"] == "2 rounds; no round was better"


def test_failing_environment_appears_unchecked(project: Path) -> None:
    edit(project, "results/environment.json", "checks", value=[{"name": "disk", "passed": False, "severity": "error"}])

    context = build(project, steps("validate", failed="validate"), outcome="Failed", error="disk: 1 GiB free")

    verified = items(context, "quality_assurance", "pre_task_checklist")["All constraints verified"]
    assert verified == {"item": "All constraints verified", "passed": False, "evidence": "not passed: disk"}
    assert "- [ ] All constraints verified (failed: not passed: disk)" in render_markdown(context)
    # The lock on disk is of an earlier run, so it says nothing about this one.
    assert "source digests" not in context["context_to_preserve"]["critical_information"]["value"]


def test_environment_from_before_the_run_does_not_count(project: Path) -> None:
    context = build(project, steps(*STAGES), created="2026-01-02T00:00:00.123456+00:00")

    verified = items(context, "quality_assurance", "pre_task_checklist")["All constraints verified"]
    assert verified["passed"] is None and "from before this run" in verified["evidence"]


def test_results_of_an_earlier_run_are_not_this_ones(project: Path) -> None:
    (project / "state" / "abc").mkdir(parents=True)
    stages = steps("validate", "prepare", "federate", failed="federate")

    context = build(project, stages, outcome="Failed", error="round 2:\ntoo few replies")

    criteria = items(context, "task_description", "success_criteria")
    assert criteria["2 federated rounds completed"]["evidence"] == "not measured: federate failed"
    action_error = criteria["global action error lower than base on every site"]
    assert action_error["passed"] is None and action_error["evidence"] == "not measured: evaluate was not run"
    assert "of an earlier run" in context["context_to_preserve"]["critical_information"]["value"]
    handover = context["subtask_requirements"]["handover_information"]["value"]
    assert "checkpoints/best at be57 (of an earlier run)" in handover and "data/manifests" in handover
    recovery = context["risk_mitigation"]["recovery_procedures"]["value"]
    assert recovery[0].startswith("`zk0 federate` continues after the last complete round")
    assert "state/abc/" in recovery[0] and "ends with round 2" in recovery[0]
    assert "Failed in federate" in context["mode_transition_notes"]["notes"]["value"]
    assert "- error: round 2: too few replies" in render_markdown(context)
    (project / "state" / "abc").rmdir()
    recovery = build(project, stages)["risk_mitigation"]["recovery_procedures"]["value"]
    assert recovery[0].endswith("starts from round 1: there is no saved state")
    scope = context["task_description"]["scope"]["value"]
    assert "stage evaluate: not run" in scope["excluded"] and "training on c: sim:push-blue-block" in scope["excluded"]


def test_broken_chain_of_digests_is_seen(project: Path) -> None:
    edit(project, "results/evaluation.json", "models", "global", "digest", value="other")
    edit(project, "results/federation/run.json", "sites", "a", "revision", value="older")

    context = build(project, steps(*STAGES))

    points = items(context, "subtask_requirements", "validation_points")
    assert points["the evaluated model is the run's best"]["evidence"] == "other is not be57"
    assert points["every site trained on a resolved source"] == {
        "item": "every site trained on a resolved source",
        "passed": False,
        "evidence": "1 of 2",
    }
    assert items(context, "quality_assurance", "post_task_validation")["Context preserved"]["passed"] is False


def test_lost_result_of_a_finished_stage(project: Path) -> None:
    (project / "results/report.html").unlink()

    context = build(project, steps(*STAGES))

    after = items(context, "quality_assurance", "post_task_validation")
    assert after["Documentation updated"]["evidence"] == "results/report.html was not written"
    assert after["Context preserved"]["passed"] is False
    assert "`dvc repro` makes results/report.html again" in context["risk_mitigation"]["recovery_procedures"]["value"]


def test_moving_source_is_a_risk_with_a_remedy(project: Path) -> None:
    risk = build(project, steps(*STAGES))["risk_mitigation"]

    assert "hub:owner/name@main may be another commit tomorrow" in risk["potential_context_loss_points"]["value"]
    assert "write hub:owner/name@main with a commit after the @" in risk["prevention_measures"]["value"]


def test_results_found_fresh_count(project: Path) -> None:
    stages = [StageOutcome(name, "Unchanged", 0.5) for name in STAGES]

    criteria = items(build(project, stages), "task_description", "success_criteria")

    assert all(item["passed"] for item in criteria.values())


def test_step_may_have_another_name_than_its_stage(project: Path) -> None:
    stages = [StageOutcome("Validation", "Completed", 3.0, stage="evaluate")]

    criteria = items(build(project, stages, flow="train"), "task_description", "success_criteria")

    assert criteria["global action error lower than base on every site"]["passed"] is True
    assert criteria["2 federated rounds completed"]["passed"] is None


def test_flow_that_trains_nothing_is_judged_by_its_steps(project: Path) -> None:
    context = build(project, steps("Unit Test Execution", "Integration Testing"), flow="testing")

    assert items(context, "task_description", "success_criteria") == {
        "every step completed": {"item": "every step completed", "passed": True, "evidence": "2 of 2 steps"}
    }
    assert items(context, "quality_assurance", "post_task_validation")["Success criteria met"]["passed"] is True
    assert "flow named 'other'" in build(project, [], flow="other")["task_description"]["objective"]["why_empty"]


@pytest.mark.parametrize(
    ("file", "text"), [("results/federation/run.json", "{half"), ("results/evaluation.json", "[1]")]
)
def test_spoilt_result_is_not_measured(project: Path, file: str, text: str) -> None:
    (project / file).write_text(text)

    criteria = items(build(project, steps(*STAGES)), "task_description", "success_criteria")

    unknown = [item for item in criteria.values() if item["passed"] is None]
    assert unknown and all(f"{file} is missing or unreadable" in item["evidence"] for item in unknown)


def test_half_a_line_of_rounds_is_passed_over(project: Path) -> None:
    with (project / "results/federation/rounds.jsonl").open("a") as stream:
        stream.write('{"round": 3, "left')
    (project / "state" / "abc").mkdir(parents=True)

    recovery = build(project, steps("federate", failed="federate"))["risk_mitigation"]["recovery_procedures"]["value"]

    assert "ends with round 2" in recovery[0]


def test_invalid_params_leave_their_fields_empty(project: Path) -> None:
    (project / "params.yaml").write_text("policy: {bas: x}\n")

    context = build(project, steps("validate", failed="validate"), outcome="Failed", error="unknown key")

    for section, name in (("task_description", "objective"), ("technical_context", "constraints")):
        assert "unknown key 'policy.bas'" in context[section][name]["why_empty"]
    captured = items(context, "quality_assurance", "pre_task_checklist")["Context fully captured"]
    assert captured["passed"] is False and "params.yaml" in captured["evidence"]


def test_code_is_named_by_its_revision(project: Path) -> None:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", *command], cwd=project, env=environ, check=True)

    code = build(project, steps(*STAGES))["technical_context"]["dependencies"]["value"]["code"]
    with (project / "params.yaml").open("a") as stream:
        stream.write("seed: 2\n")
    context = build(project, steps(*STAGES))

    assert len(code.removeprefix("git revision ")) == 40
    assert context["technical_context"]["dependencies"]["value"]["code"] == f"{code}, with uncommitted changes"
    assert any("uncommitted" in risk for risk in context["risk_mitigation"]["potential_context_loss_points"]["value"])


@pytest.mark.parametrize("where", ["empty", "project"])
def test_markdown_has_the_templates_headings_in_order(where: str, request: pytest.FixtureRequest) -> None:
    text = render_markdown(build(request.getfixturevalue(where), steps(*STAGES)))

    position = 0
    for line in TEMPLATE.strip().splitlines():
        position = text.index(f"\n{line}", position)
    for name in (*PRE_TASK, *POST_TASK):
        assert f"] {name} (" in text


def test_written_context_reads_and_renders_the_same(project: Path) -> None:
    context = build(project, steps(*STAGES), parent_id="run-0")

    write_context(project, context)

    assert read_json(project / "context.json") == context
    assert render_markdown(read_json(project / "context.json")) == render_markdown(context)
    assert "**Parent Task**: run-0" in render_markdown(context)


def test_projects_own_constraints_are_carried(empty: Path) -> None:
    (empty / "constraints.md").write_text((ROOT / "constraints.md").read_text())

    constraints = build(empty, [])["project_constraints"]

    assert constraints["document"]["value"] == "constraints.md"
    assert len(constraints["items"]["value"]) >= 15
