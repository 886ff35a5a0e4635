"""The figures of the evaluation, and the layout that all figures share.

Text and grid colours are left open: the page's script fills them in, so that figures follow the
reader's choice of light or dark.
Names from files are escaped, since plotly reads a few HTML tags in text.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from zk0.records.results import STEP_MULTIPLES, Evaluation, JointTrace, Pair, Safety, Task, TaskScore
from zk0.reporting import format as fmt
from zk0.reporting.changes import Rate, task_rate

BASE_COLOUR = "#8a94a6"
GLOBAL_COLOUR = "#2f7fd6"
LIMIT_COLOUR = "#c4577a"
ERROR_SCALE = ((0.0, "#e8f1fa"), (0.5, "#6fa8dc"), (1.0, "#123a63"))


def success(tasks: dict[str, Task]) -> go.Figure:
    """Success rates of both models, with 95% intervals."""
    figure = blank("success rate")
    for model, colour, pick in _models():
        rates = [task_rate(pick(task)) for task in tasks.values()]
        figure.add_bar(
            x=_labels(tasks),
            y=[rate.value if rate else None for rate in rates],
            name=model,
            marker_color=colour,
            customdata=[rate.text() if rate else "not measured" for rate in rates],
            hovertemplate="%{x}<br>%{customdata}",
            error_y=_error_bars(rates),
        )
    figure.update_layout(barmode="group", yaxis_range=[0, 1.02], yaxis_tickformat=".0%", bargap=0.3)
    return by_name(figure)


def action_error(tasks: dict[str, Task]) -> go.Figure:
    """Mean action error of both models, in degrees."""
    figure = blank("action error (degrees)")
    for model, colour, pick in _models():
        errors = [pick(task).action_error_deg for task in tasks.values()]
        figure.add_bar(
            x=_labels(tasks),
            y=errors,
            name=model,
            marker_color=colour,
            customdata=[fmt.degrees(error) for error in errors],
            hovertemplate="%{x}<br>%{customdata}",
        )
    figure.update_layout(barmode="group", bargap=0.3, yaxis_rangemode="tozero")
    return by_name(figure)


def joint_errors(evaluation: Evaluation) -> tuple[go.Figure, go.Figure] | None:
    """Heat maps of the base and the global model, tasks by joints, on one scale; None without values."""
    scores = [pick(task) for task in evaluation.tasks.values() for _, _, pick in _models()]
    joints = list(dict.fromkeys(joint for score in scores for joint in score.action_error_deg_by_joint))
    values = [value for score in scores for value in score.action_error_deg_by_joint.values() if value is not None]
    if not values:
        return None
    base, trained = (_heat_map(evaluation.tasks, joints, pick, max(values)) for _, _, pick in _models())
    return base, trained


def steps_beyond(safety: Pair[Safety]) -> go.Figure | None:
    """Share of both models' steps beyond multiples of the arm's longest one; None where it was not counted."""
    if not safety.trained.steps_beyond:
        return None
    figure = blank("share of the steps")
    for model, colour, found in (("base", BASE_COLOUR, safety.base), ("global", GLOBAL_COLOUR, safety.trained)):
        for (where, shares), dash in zip(found.steps_beyond.items(), ("dash", "dot", "solid"), strict=False):
            line = {"color": colour, "width": 2, "dash": dash}
            figure.add_scatter(x=STEP_MULTIPLES, y=shares, mode="lines", name=f"{model}, {where}", line=line)
    bounds = {check.name.partition(",")[0]: check.limit for check in safety.trained.checks}
    figure.add_scatter(
        x=[1, 2],
        y=[bounds.get("steps cut"), bounds.get("steps cut to less than half")],
        mode="markers",
        name="most that may",
        marker={"symbol": "triangle-down", "size": 13, "color": LIMIT_COLOUR},
    )
    return figure.update_layout(
        xaxis_title_text="longest steps of the arm", yaxis_type="log", yaxis_range=[-3.3, 0], yaxis_tickformat=".1%"
    )


def joints_over_time(trace: JointTrace) -> go.Figure:
    """Where each joint was, what the policy asked for, and what an arm was given where that is something else."""
    figure = blank("").set_subplots(
        rows=-(-len(trace.joints) // 2),
        cols=2,
        shared_xaxes=True,
        vertical_spacing=0.09,
        subplot_titles=[joint.replace("_", " ") for joint in trace.joints],
    )
    after = [step / trace.hz for step in range(len(trace.positions))]
    for number, joint in enumerate(trace.joints):
        positions, asked, sent = ([row[number] for row in rows] for rows in (trace.positions, trace.asked, trace.sent))
        cut = [given if wanted != given else None for wanted, given in zip(asked, sent, strict=True)]
        unit = "%" if joint == "gripper" else "°"
        for name, values, style in (
            ("asked for", asked, {"mode": "lines", "line": {"color": BASE_COLOUR, "dash": "dot", "width": 1.5}}),
            ("where it is", positions, {"mode": "lines", "line": {"color": GLOBAL_COLOUR, "width": 2}}),
            ("cut to", cut, {"mode": "markers", "marker": {"color": LIMIT_COLOUR, "size": 6}}),
        ):
            figure.add_scatter(
                x=after,
                y=values,
                name=name,
                legendgroup=name,
                showlegend=number == 0,
                hovertemplate=f"%{{x:.1f}} s: %{{y:.1f}}{unit}",
                row=number // 2 + 1,
                col=number % 2 + 1,
                **style,
            )
    figure.update_xaxes(showgrid=False, fixedrange=True, ticksuffix=" s")
    figure.update_yaxes(zeroline=False, automargin=True)
    return figure.update_layout(height=560, legend_y=1.06)


def blank(y_title: str) -> go.Figure:
    """An empty figure with the report's layout."""
    return go.Figure(
        layout={
            # An empty template: plotly's own would bring its colours and 7 kB a figure.
            "template": go.layout.Template(),
            "height": 320,
            "margin": {"l": 58, "r": 12, "t": 12, "b": 44},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
            "hoverlabel": {"namelength": -1},
            "xaxis": {"showgrid": False, "automargin": True, "fixedrange": True},
            "yaxis": {"title": {"text": y_title}, "automargin": True, "zeroline": False},
        }
    )


def by_name(figure: go.Figure) -> go.Figure:
    """Names below, also where they look like numbers."""
    return figure.update_layout(xaxis_type="category")


def safe(text: str) -> str:
    """A name from a file, so that plotly shows it letter by letter."""
    return html.escape(text, quote=False)


def _models() -> tuple[tuple[str, str, Callable[[Task], TaskScore]], ...]:
    """Name, colour and place in a task of the two models."""
    return ("base", BASE_COLOUR, lambda task: task.base), ("global", GLOBAL_COLOUR, lambda task: task.trained)


def _error_bars(rates: Sequence[Rate | None]) -> dict[str, Any]:
    """Interval ends as distances from the rate."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [rate.high - rate.value if rate else None for rate in rates],
        "arrayminus": [rate.value - rate.low if rate else None for rate in rates],
        "thickness": 1.5,
        "width": 5,
    }


def _heat_map(
    tasks: dict[str, Task], joints: Sequence[str], pick: Callable[[Task], TaskScore], highest: float
) -> go.Figure:
    """One model's action error, a row per task and a column per joint."""
    rows = [[pick(task).action_error_deg_by_joint.get(joint) for joint in joints] for task in tasks.values()]
    figure = blank("")
    figure.add_heatmap(
        x=[safe(joint.removesuffix(".pos").replace("_", " ")) for joint in joints],
        y=_labels(tasks),
        z=rows,
        text=[["" if v is None else _joint_value(j, v) for j, v in zip(joints, row, strict=True)] for row in rows],
        texttemplate="%{text}",
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
        colorscale=ERROR_SCALE,
        zmin=0,
        zmax=highest,
        xgap=2,
        ygap=2,
        showscale=False,
    )
    figure.update_layout(yaxis_type="category", yaxis_autorange="reversed", yaxis_showgrid=False)
    return by_name(figure.update_layout(height=max(220, 110 + 38 * len(tasks))))


def _joint_value(joint: str, value: float) -> str:
    """LeRobot records the gripper in percent of its opening, the other joints in degrees."""
    return f"{fmt.number(value)}%" if joint.startswith("gripper") else fmt.degrees(value)


def _labels(tasks: dict[str, Task]) -> list[str]:
    """Task names, the unseen ones marked."""
    return [safe(name) + (" (unseen)" if task.role == "unseen" else "") for name, task in tasks.items()]
