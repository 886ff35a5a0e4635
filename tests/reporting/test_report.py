"""The report as a reader gets it: one file, parsed as HTML."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from zk0.digests import RESULTS_VERSION
from zk0.files import read_json, write_json
from zk0.records.files import MissingRecordError, RecordError
from zk0.records.paths import COMPARISON, RUN
from zk0.reporting.report import write_report

Editor = Callable[[str, Callable[[Any], None]], None]
LOADING = {"src", "href", "srcset", "poster", "data", "action", "formaction", "xlink:href"}
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements, addresses, figures and the text of each section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.figures: dict[str, Any] = {}
        self.open: list[str] = []
        self._section = "page"
        self._plot: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = attributes["id"] or ""
        self._plot = attributes.get("data-plot")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        if tag == "section":
            self._section = "page"

    def handle_data(self, data: str) -> None:
        if self._plot:
            self.figures[self._plot] = json.loads(data)
            self._plot = None
        elif not {"script", "style"} & set(self.open):
            joined = f"{self.sections.get(self._section, '')} {' '.join(data.split())}"
            self.sections[self._section] = " ".join(joined.split())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(project: Path) -> Page:
    out = project / "results/report.html"
    write_report(project, out)
    return Page(out.read_text())


def test_report_loads_nothing(project: Path) -> None:
    page = read(project)

    addresses = [
        value or "" for _, attributes in page.elements for name, value in attributes.items() if name in LOADING
    ]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not page.attributes("link")
    assert not any("src" in script for script in page.attributes("script"))
    policy = next(m["content"] for m in page.attributes("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "http" not in policy


def test_report_is_whole_and_carries_plotly_once(project: Path) -> None:
    page = read(project)

    assert page.open == []
    html = (project / "results/report.html").read_text()
    assert html.count("* plotly.js v") == 1
    assert 4_000_000 < len(html) < 7_000_000


def test_links_and_labels_point_at_something(project: Path) -> None:
    page = read(project)

    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.attributes("a")} <= {f"#{name}" for name in ids}
    labelled = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert labelled <= set(ids)
    assert set(page.figures) <= set(ids)


def test_same_results_give_the_same_bytes(project: Path, tmp_path: Path) -> None:
    write_report(project, tmp_path / "first.html")
    write_report(project, tmp_path / "second.html")

    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()


def test_every_section_shows_its_results(project: Path) -> None:
    sections = read(project).sections

    expected = {
        "verdict": ["lower than the base's on 2 of 2 sites", "from 8.00° to 5.00° (−37.5%)", "+65.0 points"],
        "ran": ["0123456789abcdef", "2031-02-03 04:10:00 UTC", "1 h 05 min", "fedprox", "μ = 0.01", "2,345,678"],
        "sites": ["sim:touch-red-cube", "touch the green ball", "1,234", "321", "purple-cylinder unseen"],
        "learning": ["from 0.900 at the start to 0.600 in the best round (3)", "4.10 × 10⁻⁴", "4.00 MB"],
        "evaluation": ["85.0% 17 of 20 64.0% to 94.8%", "intervals apart", "intervals overlap", "8.50°", "25.5"],
        "safety": ["joint ranges, held-out", "degrees outside 5.00 1.50 passed gripper 1.50 passed elbow_flex"],
        "rollouts": ["Scene 100000", "base fail", "global success"],
        "cost": ["red-cube 6.00 MB 9.00 MB 15.0 MB 22.5 s 3.20 s", "All sites 12.0 MB 18.0 MB 30.0 MB"],
        "benchmark": [
            "Example 9000 · 4 cores · 16.0 GB memory · no GPU",
            "optimiser step 123 ms 120 ms 150 ms",
            "4.94 MB",
        ],
        "events": ["none was left out", "resume 2 from round 1"],
        "setup": ["c" * 40, "uncommitted changes", "federation.proximal_mu 0.01", "data.partition.scheme none"],
    }
    missing = [(name, text) for name, texts in expected.items() for text in texts if text not in sections[name]]
    assert not missing, {name: sections[name] for name, _ in missing}
    assert "stop the other server" in sections["setup"]
    assert "close other programs" not in sections["setup"], "advice for a check that passed"
    assert "after round 2" in sections["ran"]
    assert "torch 2.11.0" in sections["setup"] and "flwr 1.41.0" in sections["setup"]


def test_headline_is_the_title_of_the_page(project: Path) -> None:
    headline = "Better than the base on 2 of 2 sites by action error, and more successful on the sites' tasks"

    assert headline in read(project).sections["page"]


def test_figures_hold_the_results(project: Path) -> None:
    figures = read(project).figures

    loss = {trace["name"]: trace for trace in figures["plot-held-out-loss"]["data"]}
    assert loss["mean"]["x"] == [0, 1, 2, 3]
    assert loss["mean"]["y"] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert loss["green-ball"]["y"] == pytest.approx([0.95, 0.85, 0.75, 0.65])
    assert loss["best round"]["x"] == [3]
    assert figures["plot-train-loss"]["data"][0]["x"] == [1, 2, 3]
    base, trained = figures["plot-success"]["data"]
    assert base["x"] == ["red-cube", "green-ball", "purple-cylinder (unseen)"]
    assert trained["y"] == [0.85, 0.85, 0.4]
    assert trained["error_y"]["array"][0] == pytest.approx(0.948 - 0.85)
    assert trained["error_y"]["arrayminus"][0] == pytest.approx(0.85 - 0.64)
    assert figures["plot-joints-global"]["data"][0]["z"] == [[5.0] * 3, [5.0] * 3, [8.5] * 3]
    assert figures["plot-joints-global"]["data"][0]["zmax"] == figures["plot-joints-base"]["data"][0]["zmax"] == 9.0
    assert [trace["y"] for trace in figures["plot-bytes-by-round"]["data"]] == [[4.0] * 3, [6.0] * 3]
    seconds = {trace["name"]: trace["y"] for trace in figures["plot-seconds"]["data"]}
    assert seconds["training, all sites"] == [0, 15.0, 15.0, 15.0]
    assert seconds["whole round"] == [17.2] * 4


def test_videos_are_inside_and_captioned(project: Path) -> None:
    base, trained = read(project).attributes("video")

    assert base["src"] == "data:video/mp4;base64," + base64.b64encode(b"film of base").decode()
    assert base["aria-label"] == "base policy, red-cube, scene 100000: fail"
    assert trained["aria-label"] == "global policy, red-cube, scene 100000: success"


def test_joints_over_time(project: Path, edit: Editor) -> None:
    """Where they were, what was asked for, and where the arm was given something else; and how fast that was."""
    assert "plot-joints-0" not in read(project).figures
    trace = {
        "hz": 10,
        "joints": ["elbow_flex", "gripper"],
        "positions": [[0, 0], [4, 50], [6, 50]],
        "asked": [[9, 50], [6, 50]],
        "sent": [[5, 50], [6, 50]],
    }

    def traced(evaluation: dict[str, Any]) -> None:
        evaluation["videos"][1]["trace"] = trace
        evaluation["max_relative_target"] = {"elbow_flex": 5.0, "gripper": 60.0}

    edit("results/evaluation.json", traced)

    page = read(project)
    elbow = {line["name"]: (line["x"], line["y"]) for line in page.figures["plot-joints-0"]["data"][:3]}
    assert elbow == {
        "asked for": ([0, 0.1, 0.2], [9, 6]),
        "where it is": ([0, 0.1, 0.2], [0, 4, 6]),
        "cut to": ([0, 0.1, 0.2], [5, None]),
    }
    told = "Fastest: elbow flex, 40 degrees a second; its target may lie 5.0 degrees ahead."
    assert told in page.sections["rollouts"]

    edit("results/evaluation.json", lambda e: e["videos"][1]["trace"]["sent"].pop())
    with pytest.raises(RecordError, match="one position more than steps"):
        write_report(project, project / "results/report.html")


def test_rounds_that_did_not_help_are_said_not_to(project: Path, edit: Editor) -> None:
    sentence = "No round was better than the start."
    assert sentence not in read(project).sections["learning"]

    edit("results/federation/run.json", lambda run: run.update(best_held_out_loss=0.95))

    assert sentence in read(project).sections["learning"]


def test_early_end_is_explained(project: Path, edit: Editor) -> None:
    assert "Stopped early" not in read(project).sections["ran"]

    edit("results/federation/run.json", lambda run: run.update(stopped="no round since round 1 was better"))

    assert "Stopped early: no round since round 1 was better" in read(project).sections["ran"]


def test_privacy_spent_is_drawn_where_it_was_counted(project: Path, edit: Editor) -> None:
    def private(rounds: list[dict[str, Any]]) -> None:
        for row in rounds:
            row.update(epsilon=0.5 + row["round"], delta=1e-5)

    assert "plot-epsilon" not in read(project).figures

    edit("results/federation/rounds.jsonl", private)

    page = read(project)
    assert page.figures["plot-epsilon"]["data"][0]["y"] == [0.5, 1.5, 2.5, 3.5]
    assert "epsilon, at delta 1e-05" in page.sections["learning"]


def test_sites_of_a_round_are_those_that_trained(project: Path, edit: Editor) -> None:
    def not_drawn_in_round_2(rounds: list[dict[str, Any]]) -> None:
        del rounds[2]["sites"]["green-ball"]["examples"]

    before = read(project).sections["learning"]
    edit("results/federation/rounds.jsonl", not_drawn_in_round_2)
    after = read(project).sections["learning"]

    assert (before.count("6.00 MB 2"), before.count("6.00 MB 1")) == (3, 0)
    assert (after.count("6.00 MB 2"), after.count("6.00 MB 1")) == (2, 1)


def test_a_scene_filmed_for_one_model_only(project: Path, edit: Editor) -> None:
    edit("results/evaluation.json", lambda e: e["videos"].pop(0))

    page = read(project)

    assert len(page.attributes("video")) == 1
    assert "not filmed base" in page.sections["rollouts"]


def test_hostile_names_and_messages_stay_text(project: Path, edit: Editor) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>"

    def poison_run(run: Any) -> None:
        run["sites"][attack] = run["sites"]["red-cube"]
        run["params"]["tracking"] = {attack: attack}

    def poison_rounds(rounds: Any) -> None:
        rounds[1]["sites"][attack] = rounds[1]["sites"]["red-cube"]
        rounds[1]["left_out"] = {"green-ball": attack}

    scripts = len(read(project).attributes("script"))
    edit("results/federation/run.json", poison_run)
    edit("results/federation/rounds.jsonl", poison_rounds)
    edit("results/federation/events.jsonl", lambda events: events[0].update(message=attack, site=attack))
    edit("results/evaluation.json", lambda e: e["tasks"].update({attack: e["tasks"]["red-cube"]}))

    page = read(project)

    assert len(page.attributes("script")) == scripts
    assert not page.attributes("img")
    assert attack in page.sections["sites"]
    assert f"1 green-ball {attack}" in page.sections["events"]
    assert "none was left out" not in page.sections["events"]
    names = [trace["name"] for trace in page.figures["plot-held-out-loss"]["data"]]
    assert any(name.startswith("&lt;script&gt;") for name in names), "plotly shows a name letter by letter"


def test_no_rollouts_means_not_measured(project: Path, edit: Editor) -> None:
    def stop_rollouts(evaluation: Any) -> None:
        nothing = dict.fromkeys(("success_rate", "success_low", "success_high", "mean_steps"))
        for task in evaluation["tasks"].values():
            for model in ("base", "global"):
                task[model].update(nothing, rollouts=0, successes=0)
        for model in ("base", "global"):
            evaluation["overall"][model].update(successes=0, rollouts=0)
        evaluation["videos"] = []

    edit("results/evaluation.json", stop_rollouts)

    page = read(project)

    assert "by action error, with success not measured" in page.sections["page"]
    assert "closed-loop success was not measured" in page.sections["verdict"]
    assert "Success was not measured: no rollouts." in page.sections["evaluation"]
    assert "There were no rollouts" in page.sections["rollouts"]
    assert "plot-success" not in page.figures and "Mean steps" not in page.sections["evaluation"]
    assert "None" not in " ".join(page.sections.values())


def test_empty_parts_do_not_break_the_page(project: Path, edit: Editor) -> None:
    def empty_run(run: Any) -> None:
        run.update(unseen={}, best_round=0, best_held_out_loss=None, wall_s=None, resumed_at_rounds=[])
        run["git"] = {"revision": None, "dirty": False}

    def empty_evaluation(evaluation: Any) -> None:
        del evaluation["tasks"]["purple-cylinder"]
        for task in evaluation["tasks"].values():
            for model in ("base", "global"):
                task[model].update(action_error_deg=None, action_error_deg_by_joint={})
        for model in ("base", "global"):
            evaluation["safety"][model]["checks"] = []

    edit("results/federation/run.json", empty_run)
    edit("results/evaluation.json", empty_evaluation)
    edit("results/federation/events.jsonl", lambda events: events.clear())
    edit("results/federation/rounds.jsonl", lambda rounds: rounds.__delitem__(slice(1, None)))
    edit("results/benchmark.json", lambda benchmark: benchmark["rows"].clear())

    page = read(project)

    assert "Action error not measured, more successful" in page.sections["page"]
    assert "plot-joints-base" not in page.figures
    assert "Nothing was measured." in page.sections["benchmark"]
    assert "No check was made." in page.sections["safety"]
    assert "never" in page.sections["ran"]
    assert "None" not in " ".join(page.sections.values())


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("results/environment.json", "validate"),
        ("results/federation/run.json", "federate"),
        ("results/federation/rounds.jsonl", "federate"),
        ("results/federation/events.jsonl", "federate"),
        ("results/evaluation.json", "evaluate"),
        ("results/benchmark.json", "benchmark"),
        ("results/rollouts/red-cube-base-100000.mp4", "evaluate"),
    ],
)
def test_missing_input_names_file_and_stage(project: Path, name: str, stage: str) -> None:
    (project / name).unlink()
    out = project / "results/report.html"

    with pytest.raises(FileNotFoundError, match=rf"{name} is missing; `zk0 {stage}` makes it"):
        write_report(project, out)

    assert not out.exists()


def test_all_missing_inputs_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingRecordError) as caught:
        write_report(tmp_path, tmp_path / "report.html")

    assert str(caught.value).count("is missing") == 6


def test_malformed_inputs_name_file_place_and_stage(project: Path, edit: Editor) -> None:
    edit("results/evaluation.json", lambda e: e["tasks"]["red-cube"].pop("global"))

    with pytest.raises(
        RecordError, match=r"evaluation\.json lacks 'tasks\.red-cube\.global'; run `zk0 evaluate` again"
    ):
        write_report(project, project / "report.html")


def test_half_a_line_is_named(project: Path) -> None:
    path = project / "results/federation/rounds.jsonl"
    path.write_text(path.read_text()[:-40])

    with pytest.raises(RecordError, match=r"rounds\.jsonl, line 4 is not valid JSON.*`zk0 federate` again"):
        write_report(project, project / "report.html")


def test_an_event_cut_off_by_a_kill_is_left_out(project: Path) -> None:
    path = project / "results/federation/events.jsonl"
    path.write_text(path.read_text()[:-40])

    assert "All 2 events" in read(project).sections["events"]


def test_an_event_that_is_damaged_with_others_after_it_is_named(project: Path) -> None:
    path = project / "results/federation/events.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([first[:-10], *others]))

    with pytest.raises(RecordError, match=r"events\.jsonl, line 1 is not valid JSON.*`zk0 federate` again"):
        write_report(project, project / "report.html")


def test_unseen_data_that_the_run_did_not_know(project: Path, edit: Editor) -> None:
    edit("results/federation/run.json", lambda run: run.pop("unseen"))
    edit("results/evaluation.json", lambda e: e["tasks"]["purple-cylinder"].update(source="sim:touch-purple-cylinder"))

    expected = "purple-cylinder unseen sim:touch-purple-cylinder touch the purple cylinder – – – 321 –"
    assert expected in read(project).sections["sites"]


@pytest.mark.parametrize(
    ("video", "problem"),
    [
        ({"file": "../secret.mp4"}, "outside the project"),
        ({"file": "/etc/secret.mp4"}, "outside the project"),
        ({"file": "results/evaluation.json"}, "must end in .mp4 or .webm"),
        ({"task": "blue-block"}, "a task it did not evaluate"),
    ],
)
def test_strange_videos_are_refused(project: Path, edit: Editor, video: dict[str, str], problem: str) -> None:
    edit("results/evaluation.json", lambda e: e["videos"][0].update(video))

    with pytest.raises(RecordError, match=problem):
        write_report(project, project / "report.html")


@pytest.fixture
def study(project: Path) -> dict[str, Any]:
    """A comparison with the run's params; written where a study leaves it."""
    run = read_json(project / RUN)
    run["base"]["source"] = run["params"].setdefault("policy", {}).setdefault("base", "models/nano-base")
    for name, site in run["sites"].items():
        site["revision"] = f"{name}-recordings"
    write_json(project / RUN, run)
    rates = {"base": 0.1, "alone:red": 0.3, "pooled:samples": 0.8, "federated": 0.6}
    arms = [
        {"name": name, "about": f"about {name}", "seen": {"value": rate, "low": rate - 0.05, "high": rate + 0.05}}
        for name, rate in rates.items()
    ]
    told = {
        "command": "zk0 study comparison",
        "seeds": [1, 2, 3],
        "scenes": [200000, 100],
        "closed_loop": True,
        "results_version": RESULTS_VERSION,
        "params": run["params"],
        "revisions": {name: site["revision"] for name, site in run["sites"].items()},
        "arms": arms,
    }
    write_json(project / COMPARISON, told)
    return told


BESIDE = "Beside training alone and in one place"


def test_a_study_of_the_runs_params_is_shown_beside_it(project: Path, study: dict[str, Any], tmp_path: Path) -> None:
    write_report(project, tmp_path / "report.html")

    told = Page((tmp_path / "report.html").read_text()).sections["evaluation"]
    assert BESIDE in told and "training seeds 1, 2, 3" in told and "100 scenes a task from seed 200000" in told
    for arm in study["arms"]:
        assert arm["name"] in told and arm["about"] in told
    assert "60.0%" in told and "55.0% to 65.0%" in told


@pytest.mark.parametrize("other", ["params", "recordings", "state", "start", "none"])
def test_a_study_of_something_else_is_not(project: Path, study: dict[str, Any], tmp_path: Path, other: str) -> None:
    if other == "params":
        study["params"] = {**study["params"], "federation": {"strategy": "another"}}
    if other == "recordings":
        study["revisions"] = dict.fromkeys(study["revisions"], "grown")
    if other == "state":
        study["results_version"] -= 1
    write_json(project / COMPARISON, study)
    if other == "start":
        run = read_json(project / RUN)
        run["base"]["source"] = "mlruns/champion"
        write_json(project / RUN, run)
    if other == "none":
        (project / COMPARISON).unlink()

    write_report(project, tmp_path / "report.html")

    assert BESIDE not in (tmp_path / "report.html").read_text()
